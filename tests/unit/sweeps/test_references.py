"""References of an ablation file: read from its folder, probed once on each split, kept."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from jepa_lab.errors import ConfigError, JepaLabError, RunStopped
from jepa_lab.sweeps.folder import SweepFolder
from jepa_lab.sweeps.references import PlannedReference, ReferenceProbing, kept_references, read_references
from jepa_lab.sweeps.tasks import Outcome, Reply, Task
from jepa_lab.tracking.locks import FileLock
from jepa_lab.tracking.records import write_record
from tests.integration.pipelines import load_tiny
from tests.unit.sweeps.ablations import plan_of, refusal

ARMS = "one_at_a_time: {loss: [l2]}\n"


def test_a_path_is_seen_from_the_ablation_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs" / "a").mkdir(parents=True)
    text = f"{ARMS}references: [runs/a, models:/m/1, {tmp_path}/runs/a/../a, facebook/x]\n"
    found = plan_of(tmp_path, text).references
    assert [each.name for each in found] == ["runs/a", "models:/m/1", f"{tmp_path}/runs/a/../a", "facebook/x"]
    run = str(tmp_path / "runs" / "a")
    assert [each.source for each in found] == [run, "models:/m/1", run, "facebook/x"]
    digests = [each.digest for each in found]
    assert len(set(digests)) == 3
    (tmp_path / "runs" / "a").rmdir()
    assert [each.digest for each in plan_of(tmp_path, text).references] == digests
    (tmp_path / "elsewhere" / "b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "elsewhere")
    (line,) = refusal(tmp_path, f"{ARMS}references: [b]\n")
    assert line.startswith("example.yaml:3: reference 'b' is seen from the folder of this file")


def test_references_change_no_trial_and_leave_the_sweep_the_same(tmp_path: Path) -> None:
    assert plan_of(tmp_path, ARMS).digest == plan_of(tmp_path, f"{ARMS}references: [x/y]\n").digest


def test_what_cannot_be_meant_is_refused(tmp_path: Path) -> None:
    assert "references has 'x' twice" in refusal(tmp_path, f"{ARMS}references: [x, x]\n")[0]
    assert "is not a number of a probe" in refusal(tmp_path, f"{ARMS}references: [x]\nmetric: rankme_end\n")[0]


class FakeExecutor:
    """Two slots, whose tasks end as a script says; a task that finishes leaves its result."""

    look_seconds = 0.0

    def __init__(self, *outcomes: Outcome) -> None:
        self.outcomes, self.started, self.running, self.stopped = list(outcomes), [], [], False

    def capacity(self) -> int:
        return 2

    def adopt(self, task: Task) -> bool:
        return False

    def submit(self, task: Task) -> None:
        self.started.append((task.encoder, task.config.stem))
        self.running.append(task)

    def poll(self, seconds: float) -> list[Reply]:
        task, outcome = self.running.pop(0), self.outcomes.pop(0)
        if outcome == "finished":
            content = {"metrics": {"probe/validation_accuracy": 0.5}, "notes": []}
            write_record(task.runs / f"{task.config.stem}.json", "reference", 1, content)
        return [Reply(task.number, outcome, "because")]

    def cancel(self, numbers: Collection[int]) -> None:
        self.stopped = True

    def news(self) -> list[str]:
        return []


REFERENCES = (PlannedReference("a", "/x/a", "file:1", "aa"), PlannedReference("b", "/x/b", "file:2", "bb"))


def probing(folder: Path, executor: FakeExecutor, *, stop: bool = False, splits: tuple[int, ...] = (0,)) -> bool:
    signals: Any = SimpleNamespace(received=15 if stop else None)
    display: Any = SimpleNamespace(message=print)
    pipelines = {split: load_tiny(folder, f"data.split_seed={split}") for split in splits}
    return ReferenceProbing(SweepFolder(folder), executor, signals, display).perform(REFERENCES, pipelines)  # type: ignore[arg-type]


def test_each_is_probed_once_on_each_split_and_kept(tmp_path: Path) -> None:
    executor = FakeExecutor(*["finished"] * 4)
    assert probing(tmp_path, executor, splits=(3, 4))
    assert sorted(executor.started) == [("/x/a", "3"), ("/x/a", "4"), ("/x/b", "3"), ("/x/b", "4")]
    again = FakeExecutor()
    assert probing(tmp_path, again, splits=(3, 4))
    assert again.started == []
    plan = {"seeds": [7, 8, 9], "split_seeds": [3, 4, 5], "baseline_config": {"data.split_seed": 3}}
    found = read_references(SweepFolder(tmp_path), plan, (7, 8, 9))
    assert [each.name for each in found] == ["a", "b"]
    assert found[0].splits == {7: 3, 8: 4}
    assert found[0].values("probe/validation_accuracy") == {7: 0.5, 8: 0.5}


def test_one_that_is_preempted_now_and_then_is_probed_all_the_same(tmp_path: Path) -> None:
    executor = FakeExecutor(*["interrupted"] * 8, "finished", "finished")
    assert probing(tmp_path, executor)


def test_one_whose_worker_was_killed_is_probed_by_another(tmp_path: Path) -> None:
    executor = FakeExecutor("died", "finished", "finished")
    assert probing(tmp_path, executor)
    assert executor.started == [("/x/a", "0"), ("/x/b", "0"), ("/x/a", "0")]


@pytest.mark.parametrize(
    ("outcomes", "error"),
    [
        (["failed"], ConfigError),
        (["out_of_memory"], RunStopped),
        (["died"] * 5, RunStopped),
        (["interrupted"] * 21, RunStopped),
    ],
)
def test_one_that_cannot_be_probed_stops_the_sweep(
    tmp_path: Path, outcomes: list[Outcome], error: type[JepaLabError]
) -> None:
    with pytest.raises(error, match="the reference a could not be probed: because"):
        probing(tmp_path, FakeExecutor(*outcomes))


def test_one_that_another_process_probes_is_not_begun_again_before_that_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "claims").mkdir()
    executor, released = FakeExecutor("busy", "finished", "finished"), []
    answer = executor.poll
    with FileLock(SweepFolder(tmp_path).claim("reference-aa-0"), "the reference") as other:
        other.acquire(0)

        def poll(seconds: float) -> list[Reply]:
            if executor.running:
                return answer(seconds)
            other.release()
            released.append(len(executor.started))
            return []

        monkeypatch.setattr(executor, "poll", poll)
        assert probing(tmp_path, executor)
    assert released == [2]
    assert executor.started == [("/x/a", "0"), ("/x/b", "0"), ("/x/a", "0")]


def test_a_signal_stops_it_and_what_is_done_is_kept(tmp_path: Path) -> None:
    executor = FakeExecutor("finished", "interrupted")
    assert not probing(tmp_path, executor, stop=True)
    assert executor.stopped
    rest = FakeExecutor("finished")
    assert probing(tmp_path, rest)
    assert rest.started == [("/x/b", "0")]


def test_a_sweep_that_is_not_on_this_machine_has_none(tmp_path: Path) -> None:
    assert kept_references(tmp_path / "none", (0,)) == ()
