"""The local executor with workers that do what the task says: each has its part of the machine, and gives it back."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jepa_lab.errors import ConfigError
from jepa_lab.sweeps.executors import local
from jepa_lab.sweeps.executors.base import Surroundings
from jepa_lab.sweeps.executors.local import LocalExecutor
from jepa_lab.sweeps.folder import SweepFolder
from jepa_lab.sweeps.resources import Needs, Resources
from jepa_lab.sweeps.sharing import slots
from jepa_lab.sweeps.sharing.memory import GIB, share_of
from jepa_lab.sweeps.sharing.mps_keeper import PIPES
from jepa_lab.sweeps.tasks import Reply, Task
from tests.unit.sweeps.sharing.fake_mps import FakeMps, daemon_pid, is_alive

_WORKER = """#!{python} -IS
import json, os, sys
replies = os.fdopen(int(sys.argv[4]), "w")
for line in sys.stdin:
    task = json.loads(line)
    names = ("CUDA_VISIBLE_DEVICES", "CUDA_MPS_PIPE_DIRECTORY", "OMP_NUM_THREADS")
    seen = {{name: os.environ.get(name) for name in names}}
    seen |= {{"pid": os.getpid(), "memory": task["gpu_memory_bytes"]}}
    reply = {{"number": task["number"], "outcome": task["tags"]["outcome"], "message": json.dumps(seen)}}
    print(json.dumps(reply), file=replies, flush=True)
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeMps:
    python = tmp_path / "python"
    python.write_text(_WORKER.format(python=sys.executable))
    python.chmod(0o755)
    fake = FakeMps(tmp_path, monkeypatch)
    monkeypatch.setattr(local, "visible_gpus", lambda: ["5"])
    monkeypatch.setattr(local, "sys", SimpleNamespace(executable=str(python)))
    for module in (slots, local):
        monkeypatch.setattr(module, "num_cores", lambda: 16)
    return fake


def needs(*, on_gpu: bool, **resources: Any) -> Needs:
    return Needs(Resources(**resources), on_gpu)


def around(folder: Path, *, on_gpu: bool) -> Surroundings:
    return Surroundings(SweepFolder(folder), folder, needs(on_gpu=on_gpu))


@pytest.fixture
def executor(fake: FakeMps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalExecutor]:
    made = LocalExecutor(LocalExecutor.Params(slots=None, slots_per_gpu=4), around(tmp_path, on_gpu=True))
    yield made
    made.close()


def perform(executor: LocalExecutor, *numbers: int, outcome: str = "finished") -> dict[int, Reply]:
    for number in numbers:
        executor.submit(Task(number, f"arm-{number}", Path("a"), Path("b"), Path("c"), {"outcome": outcome}, {}))
    replies: list[Reply] = []
    while len(replies) < len(numbers):
        replies += executor.poll(10.0)
    return {reply.number: reply for reply in replies}


def test_each_worker_has_its_part_of_gpu_memory_and_threads(executor: LocalExecutor) -> None:
    seen = [json.loads(reply.message) for reply in perform(executor, 0, 1, 2, 3).values()]
    assert len({each["pid"] for each in seen}) == 4, "a process, which is a CUDA context, for each slot"
    assert {each["memory"] for each in seen} == {share_of(40 * GIB, 4)}
    assert {each["OMP_NUM_THREADS"] for each in seen} == {"4"}
    assert {each["CUDA_VISIBLE_DEVICES"] for each in seen} == {"0"}, "of the daemon, which sees GPU 5 alone"
    assert len({each["CUDA_MPS_PIPE_DIRECTORY"] for each in seen}) == 1
    again = [json.loads(reply.message) for reply in perform(executor, 4, 5).values()]
    assert {each["pid"] for each in again} < {each["pid"] for each in seen}, "they stay from trial to trial"


def test_a_slot_less_gives_its_memory_to_the_others_at_once(executor: LocalExecutor) -> None:
    first = [json.loads(reply.message) for reply in perform(executor, 0, 1, 2, 3).values()]
    assert executor.give_more_memory(0) == "that was with 4 slots; continuing with one slot fewer"
    assert executor.give_more_memory(1) == "", "it has more already"
    assert sum(is_alive(each["pid"]) for each in first) == 3
    seen = json.loads(perform(executor, 4)[4].message)
    assert seen["memory"] == share_of(40 * GIB, 3)
    assert executor.give_more_memory(4)
    assert json.loads(perform(executor, 6)[6].message)["memory"] == share_of(40 * GIB, 2)
    assert executor.give_more_memory(6)
    assert json.loads(perform(executor, 5)[5].message)["memory"] is None
    assert executor.give_more_memory(5) is None


def test_out_of_memory_names_the_share_and_the_option(executor: LocalExecutor) -> None:
    reply = perform(executor, 0, outcome="out_of_memory")[0]
    assert reply.outcome == "out_of_memory"
    assert reply.message.endswith(
        "; it may use 9.4 GiB of a GPU that it shares: lower --slots-per-gpu 4 to give each trial more"
    )


def test_the_daemon_ends_after_the_last_worker(executor: LocalExecutor) -> None:
    daemon = daemon_pid(Path(json.loads(perform(executor, 0)[0].message)[PIPES]))
    assert is_alive(daemon)
    executor.close()
    assert not is_alive(daemon)


def test_trials_on_a_cpu_leave_the_gpu_alone(fake: FakeMps, tmp_path: Path) -> None:
    executor = LocalExecutor(LocalExecutor.Params(slots=4, slots_per_gpu=None), around(tmp_path, on_gpu=False))
    assert (list(executor.sentences), fake.said("start")) == ([], [])
    executor.close()


def test_trials_on_a_cpu_have_a_slot_per_core_whatever_gpus_there_are(fake: FakeMps) -> None:
    params = LocalExecutor.Params(slots=None, slots_per_gpu=None)
    assert LocalExecutor.planned_slots(params, needs(on_gpu=True)) == 1
    assert LocalExecutor.planned_slots(params, needs(on_gpu=False)) == 16
    with pytest.raises(ConfigError, match=r"training\.device=cpu uses none; use --slots, whose default is one per CPU"):
        LocalExecutor.planned_slots(LocalExecutor.Params(slots=None, slots_per_gpu=2), needs(on_gpu=False))


def test_more_than_fit_are_refused_by_the_option_that_asked_for_them(fake: FakeMps) -> None:
    with pytest.raises(ConfigError, match=r"^--slots-per-gpu 99 lets 99 trials share GPU 5, which has 40\.0 GiB free"):
        LocalExecutor.check_machine(LocalExecutor.Params(slots=None, slots_per_gpu=99), needs(on_gpu=True))
    with pytest.raises(ConfigError, match=r"^--slots 98 lets 98 trials"):
        LocalExecutor.check_machine(LocalExecutor.Params(slots=98, slots_per_gpu=None), needs(on_gpu=True))
    LocalExecutor.check_machine(LocalExecutor.Params(slots=98, slots_per_gpu=None), needs(on_gpu=False))
