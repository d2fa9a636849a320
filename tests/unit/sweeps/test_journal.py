"""The journal on a file system that is full or fails, and one that is damaged."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
from optuna.storages.journal import JournalFileBackend

from jepa_lab.errors import JepaLabError, RunFolderError, StorageUnavailable
from jepa_lab.sweeps.journal import open_journal
from jepa_lab.sweeps.study import PlannedTrial, TableStudy


def table(path: Path) -> TableStudy:
    return TableStudy(open_journal(path), "s", "maximize", ["a"], [0, 1])


@pytest.mark.parametrize(
    ("number", "kind", "code"), [(errno.ENOSPC, StorageUnavailable, 3), (errno.EACCES, RunFolderError, 2)]
)
def test_a_journal_that_cannot_be_written_is_one_sentence_and_loses_nothing_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[JepaLabError], code: int
) -> None:
    journal = tmp_path / "journal.log"
    study = table(journal)
    study.enqueue([PlannedTrial("a", 0)])

    def full(backend: JournalFileBackend, logs: object) -> None:
        raise OSError(number, "the reason", str(journal))

    with monkeypatch.context() as patch:
        patch.setattr(JournalFileBackend, "append_logs", full)
        with pytest.raises(kind, match=r"journal\.log cannot be written \(the reason\); .* the same command") as caught:
            study.enqueue([PlannedTrial("a", 1)])
    assert caught.value.exit_code == code
    again = table(journal)
    again.enqueue([PlannedTrial("a", 0), PlannedTrial("a", 1)])
    assert [again.planned(trial) for trial in again.trials()] == [PlannedTrial("a", 0), PlannedTrial("a", 1)]


def test_a_damaged_journal_is_named_with_what_to_do(tmp_path: Path) -> None:
    journal = tmp_path / "journal.log"
    table(journal).enqueue([PlannedTrial("a", 0), PlannedTrial("a", 1)])
    lines = journal.read_text().splitlines()
    journal.write_text("\n".join([*lines[:2], lines[2][:5], *lines[3:]]) + "\n")
    with pytest.raises(RunFolderError, match=r"journal\.log is damaged \(.*\); put it back from a copy; or remove it"):
        table(journal)
