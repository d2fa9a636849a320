"""The attempts at tasks, as files of the sweep's folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from jepa_lab.sweeps.attempts import Attempts
from jepa_lab.sweeps.tasks import Task


def task(name: str) -> Task:
    return Task(0, name, Path("/c.yaml"), Path("/runs"), Path("/claim"), {}, {})


def test_attempts_are_counted_on_from_those_of_an_earlier_parent(tmp_path: Path) -> None:
    first = Attempts(tmp_path / "tasks")
    assert first.last("arm-0001") is None
    assert [first.begin(task("arm-0001")).count for _ in range(11)] == list(range(1, 12))
    first.begin(task("arm-0001-1"))
    later = Attempts(tmp_path / "tasks")
    last = later.last("arm-0001")
    assert last is not None
    assert (last.count, last.task.is_file()) == (11, True)
    assert later.begin(task("arm-0001")).count == 12
    assert later.begin(task("arm-0001-1")).count == 2
    assert later.last("arm-0002") is None


def test_the_folder_is_listed_once_however_many_tasks_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempts = Attempts(tmp_path / "tasks")
    attempts.begin(task("arm-0000"))
    monkeypatch.setattr(Path, "glob", lambda *given: pytest.fail("the folder of all tasks was listed again"))
    for number in range(1, 4):
        assert attempts.last(f"arm-{number:04d}") is None
        assert attempts.begin(task(f"arm-{number:04d}")).count == 1
