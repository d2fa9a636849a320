"""The description of a sweep's run in MLflow: its table, as long as MLflow keeps it."""

from __future__ import annotations

from pathlib import Path

import pytest

from jepa_lab.tracking.run_folder import RunFolder
from jepa_lab.tracking.sweep_note import note_digest, sweep_note

LIMIT = 8000  # MLflow's, of a tag


def _note_of(folder: Path, table: str) -> str:
    (folder / "report").mkdir(exist_ok=True)
    (folder / "report" / "table.md").write_text(table, encoding="utf-8")
    note = sweep_note(RunFolder(folder))
    assert note is not None
    return note


def test_a_sweep_without_a_table_has_no_description(tmp_path: Path) -> None:
    assert sweep_note(RunFolder(tmp_path)) is None
    assert note_digest(None) is None


def test_the_description_is_the_table_and_says_where_the_report_is(tmp_path: Path) -> None:
    note = _note_of(tmp_path, "## losses\n\n| arm |\n| --- |\n| ä |\n")
    assert note.startswith("## losses\n\n| arm |\n| --- |\n| ä |\n\n")
    assert "`report/report.html` under Artifacts" in note
    assert "Cut" not in note


@pytest.mark.parametrize("more", [-1, 0, 1, 500, 100_000])
def test_a_table_that_is_too_long_ends_with_a_whole_line_and_says_that_it_was_cut(tmp_path: Path, more: int) -> None:
    row = "| arm of a long table | 12.34 [10.00, 14.00] |"
    whole = len(_note_of(tmp_path, row)) - len(row)
    table = f"{row}\n" * 100
    table += "x" * (LIMIT - whole - len(table) + more)
    note = _note_of(tmp_path, table)
    assert len(note) <= LIMIT
    assert ("**Cut here**" in note) == (more > 0)
    if more > 0:
        kept = note.split("\n\n**Cut here**")[0]
        assert set(kept.splitlines()) == {row}
        assert "`report/table.md` under Artifacts" in note
