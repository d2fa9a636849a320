"""What goes wrong in a team of two: `python -m tests.integration.team_faults FOLDER CASE...`.

For test_distributed.py and test_lost_members.py. Each case is a forked pair of processes that run the command line with
a fault in one of them.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch.distributed as dist

import jepa_lab.composition.data
import jepa_lab.composition.start
from jepa_lab.api import running
from jepa_lab.build import PreparedData
from jepa_lab.cli import main as command_line
from jepa_lab.composition import shared_folder
from jepa_lab.data.resident import ResidentBatches
from jepa_lab.errors import DataError, RunStopped
from jepa_lab.evaluation import OnlineEvaluation
from jepa_lab.tracking import environment
from jepa_lab.training import connections, distributed, meeting
from jepa_lab.training.checkpoint import CheckpointStore
from jepa_lab.training.distributed import Processes
from jepa_lab.training.pretrain import Pretraining
from jepa_lab.training.step import TrainingStep
from tests.integration.pipelines import write_tiny
from tests.integration.team import forked_team

AT = 7


def follower_refuses_its_data() -> None:
    def refuse(*arguments: object) -> None:
        raise DataError("the follower's disk is empty; fill it")

    jepa_lab.composition.data.load_data = refuse


def leader_cannot_write_a_checkpoint() -> None:
    save = CheckpointStore.save

    def full(self: CheckpointStore, checkpoint: Any) -> Path:
        if checkpoint.run.step > 0:
            raise RunStopped("the leader's disk is full; free space")
        return save(self, checkpoint)

    CheckpointStore.save = full  # type: ignore[method-assign]


def follower_cannot_read_images() -> None:
    read = ResidentBatches.next

    def unreadable(self: ResidentBatches) -> Any:
        if self.order.position().batch == 2:
            raise RunStopped("the follower's file is gone; restore it")
        return read(self)

    ResidentBatches.next = unreadable  # type: ignore[method-assign]


def follower_has_a_bug() -> None:
    _after_step(AT, lambda: 1 // 0)


def follower_is_killed() -> None:
    _in_step(AT, lambda: os.kill(os.getpid(), signal.SIGKILL))


def leader_is_killed() -> None:
    _in_step(AT, lambda: os.kill(os.getpid(), signal.SIGKILL))


def follower_is_out_of_memory() -> None:
    def fail() -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 byte")

    _in_step(AT, fail)


def follower_gets_sigterm() -> None:
    _after_step(AT, lambda: os.kill(os.getpid(), signal.SIGTERM))


def leader_gets_ctrl_c_in_an_evaluation() -> None:
    evaluate = OnlineEvaluation.evaluate

    def interrupted(self: OnlineEvaluation) -> Any:
        if self.detector.state() != fresh:
            os.kill(os.getpid(), signal.SIGINT)
        return evaluate(self)

    fresh: dict[str, Any] = {}
    create = OnlineEvaluation.__init__

    def created(self: OnlineEvaluation, *arguments: Any) -> None:
        create(self, *arguments)
        fresh.update(self.detector.state())

    OnlineEvaluation.__init__ = created  # type: ignore[method-assign]
    OnlineEvaluation.evaluate = interrupted  # type: ignore[method-assign]


def follower_has_images_that_are_not_finite() -> None:
    call = TrainingStep.__call__

    def poisoned(self: TrainingStep, images: Any, *arguments: Any) -> Any:
        return call(self, images * (float("nan") if int(self.numbers.step) == AT else 1), *arguments)

    TrainingStep.__call__ = poisoned  # type: ignore[method-assign]


def follower_dies_before_the_meeting() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leader_dies_while_all_meet() -> None:
    declare = meeting._declare_start

    def declared(store: dist.Store, size: int) -> str | None:
        start = declare(store, size)
        if start is not None:
            os.kill(os.getpid(), signal.SIGKILL)
        return start

    meeting._declare_start = declared


def follower_dies_while_they_connect() -> None:
    dist.init_process_group = lambda *arguments, **named: os.kill(os.getpid(), signal.SIGKILL)


def follower_dies_while_they_connect_for_gradients() -> None:
    dist.new_group = lambda *arguments, **named: os.kill(os.getpid(), signal.SIGKILL)


def leader_gets_sigterm_while_all_meet() -> None:
    _signal_while_all_meet(signal.SIGTERM)


def leader_gets_ctrl_c_while_all_meet() -> None:
    _signal_while_all_meet(signal.SIGINT)


def _signal_while_all_meet(number: signal.Signals) -> None:
    meeting._declare_start = lambda store, size: None  # as if somebody were still missing
    threading.Timer(1, os.kill, (os.getpid(), number)).start()


def follower_has_another_pipeline() -> None:
    load = running.load_given_pipeline

    def loaded(source: Any, overrides: Any, preset: str | None) -> Any:
        return load(source, (*overrides, "training.epochs=5"), preset)

    running.load_given_pipeline = loaded


def follower_alone_is_told_to_resume() -> None:
    perform = running.perform_run
    running.perform_run = lambda request, team: perform(replace(request, resume=Path("auto")), team)


def follower_has_another_version() -> None:
    environment.__version__ = "0.0.1"


def follower_has_other_images() -> None:
    load = jepa_lab.composition.data.load_data

    def changed(*arguments: Any) -> tuple[PreparedData, PreparedData]:
        data, probe_data = load(*arguments)
        return replace(data, digest="of others"), probe_data

    jepa_lab.composition.data.load_data = changed


def follower_sees_another_folder() -> None:
    check = shared_folder.check_shared_folder
    shared_folder._SHOWN_AFTER_SECONDS = 0.5
    jepa_lab.composition.start.check_shared_folder = lambda folder, team: check(folder / "elsewhere", team)


def follower_dies_while_the_leader_evaluates() -> None:
    from_leader = Processes.from_leader

    def dying(self: Processes, work: Callable[[], Any]) -> Any:
        if work.__qualname__.startswith("Pretraining._evaluate"):
            self.meet()  # after which the leader evaluates
            os.kill(os.getpid(), signal.SIGKILL)
        return from_leader(self, work)

    Processes.from_leader = dying  # type: ignore[method-assign]


def leader_dies_at_a_checkpoint() -> None:
    save = CheckpointStore.save

    def killed(self: CheckpointStore, checkpoint: Any) -> Path:
        if checkpoint.run.step > 0:
            os.kill(os.getpid(), signal.SIGKILL)
        return save(self, checkpoint)

    CheckpointStore.save = killed  # type: ignore[method-assign]


def network_fails_in_a_step() -> None:
    _in_step(AT, cut_network)


def network_fails_while_the_leader_evaluates() -> None:
    evaluate = OnlineEvaluation.evaluate

    def cut_off(self: OnlineEvaluation) -> Any:
        cut_network()
        time.sleep(3 * connections.MACHINE_IS_LOST.total_seconds())
        return evaluate(self)

    OnlineEvaluation.evaluate = cut_off  # type: ignore[method-assign]


def cut_network() -> None:
    """Nothing arrives any more, and no connection is closed. For a process in a network of its own."""
    subprocess.run(["ip", "link", "set", "lo", "down"], check=True)


def nothing() -> None:
    """A refusal that all of them find out."""


def _after_step(at: int, act: Callable[[], object]) -> None:
    after = Pretraining.after_step

    def acted(self: Pretraining, step: int, *arguments: Any) -> None:
        if step == at:
            act()
        after(self, step, *arguments)

    Pretraining.after_step = acted  # type: ignore[method-assign]


def _in_step(at: int, act: Callable[[], object]) -> None:
    call = TrainingStep.__call__

    def acted(self: TrainingStep, *arguments: Any) -> Any:
        if int(self.numbers.step) == at:
            act()
        return call(self, *arguments)

    TrainingStep.__call__ = acted  # type: ignore[method-assign]


def wait_for_seconds_only() -> None:
    """The limits that are minutes in a run, in the cases that wait for them."""
    os.environ[meeting.VARIABLE] = "0.1"
    meeting.CONNECTED = distributed.CONNECTED = timedelta(seconds=4)
    connections.MACHINE_IS_LOST = timedelta(seconds=4)


UNTIL_A_LIMIT = {"absent", "absent_leader", "meeting", "connecting", "gradients", "network", "network_in_evaluation"}

CASES: dict[str, tuple[int, Callable[[], None], tuple[str, ...]]] = {
    # name: rank of the process with the fault, the fault, overrides
    "batch": (0, nothing, ("training.batch_size=25",)),
    "data": (1, follower_refuses_its_data, ()),
    "disk": (0, leader_cannot_write_a_checkpoint, ()),
    "images": (1, follower_cannot_read_images, ()),
    "bug": (1, follower_has_a_bug, ()),
    "killed": (1, follower_is_killed, ()),
    "leader_killed": (0, leader_is_killed, ()),
    "memory": (1, follower_is_out_of_memory, ()),
    "sigterm": (1, follower_gets_sigterm, ()),
    "evaluation": (0, leader_gets_ctrl_c_in_an_evaluation, ()),
    "skipped": (1, follower_has_images_that_are_not_finite, ("training.max_skipped_batches=1",)),
    "not_finite": (0, nothing, ("optimizer.learning_rate=1e30", "loss=l2")),
    "absent": (1, follower_dies_before_the_meeting, ()),
    "absent_leader": (0, follower_dies_before_the_meeting, ()),
    "meeting": (0, leader_dies_while_all_meet, ()),
    "connecting": (1, follower_dies_while_they_connect, ()),
    "gradients": (1, follower_dies_while_they_connect_for_gradients, ()),
    "waiting": (0, leader_gets_sigterm_while_all_meet, ()),
    "interrupted": (0, leader_gets_ctrl_c_while_all_meet, ()),
    "pipeline": (1, follower_has_another_pipeline, ()),
    "command": (1, follower_alone_is_told_to_resume, ()),
    "version": (1, follower_has_another_version, ()),
    "other_images": (1, follower_has_other_images, ()),
    "folder": (1, follower_sees_another_folder, ()),
    "in_evaluation": (1, follower_dies_while_the_leader_evaluates, ()),
    "checkpoint": (0, leader_dies_at_a_checkpoint, ()),
    "network": (1, network_fails_in_a_step, ()),
    "network_in_evaluation": (0, network_fails_while_the_leader_evaluates, ()),
}


def main() -> None:
    """Run the cases; print exit codes and outputs as JSON."""
    root = Path(sys.argv[1])
    file = write_tiny(root)
    report = {}
    for case in sys.argv[2:]:
        at_rank, fault, overrides = CASES[case]
        folder = root / case
        folder.mkdir()

        def work(
            rank: int, folder: Path = folder, at: int = at_rank, fault: Any = fault, more: Any = overrides
        ) -> None:
            if folder.name in UNTIL_A_LIMIT:
                wait_for_seconds_only()
            if rank == at:
                fault()
            try:
                command_line(["run", str(file), "--runs", str(folder / "runs"), *more])
            except SystemExit as end:
                os._exit(int(end.code or 0))

        codes = forked_team(folder, work)
        report[case] = {"codes": codes, "said": [(folder / f"rank-{rank}.out").read_text() for rank in range(2)]}
    print(json.dumps(report))


if __name__ == "__main__":
    main()
