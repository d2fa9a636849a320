"""What goes wrong in a team of two, for test_distributed.py: `python -m tests.integration.team_faults FOLDER CASE...`.

Each case is a forked pair of processes that run the command line with a fault in one of them.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jepa_lab.composition.data
from jepa_lab.cli import main as command_line
from jepa_lab.data.resident import ResidentBatches
from jepa_lab.errors import DataError, RunStopped
from jepa_lab.evaluation import OnlineEvaluation
from jepa_lab.training.checkpoint import CheckpointStore
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
