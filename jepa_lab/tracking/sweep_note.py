"""The description of a sweep's run in MLflow: its table, in Markdown."""

from __future__ import annotations

import hashlib

from jepa_lab.tracking.mlflow_names import MAX_TAG_VALUE
from jepa_lab.tracking.run_folder import RunFolder

NOTE_TAG = "mlflow.note.content"
_TABLE = "report/table.md"
_WHERE = "The report with its figures is `report/report.html` under Artifacts; the trials are the runs below this one."
_CUT = (
    "**Cut here**, because MLflow keeps at most {limit:,} characters: all of it is `report/table.md` under Artifacts."
)


def sweep_note(folder: RunFolder) -> str | None:
    """The description of a sweep; None as long as it has no table, and for a run."""
    table = folder.path / _TABLE
    return _note(table.read_text(encoding="utf-8")) if table.is_file() else None


def note_digest(note: str | None) -> str | None:
    """What tells one description from another."""
    return None if note is None else hashlib.sha256(note.encode()).hexdigest()


def _note(table: str, limit: int = MAX_TAG_VALUE) -> str:
    """The table and where the rest is; a table that is too long ends with a whole line and says that it was cut."""
    table = table.strip()
    if len(table) + len(_WHERE) + 2 <= limit:
        return f"{table}\n\n{_WHERE}"
    ending = f"\n\n{_CUT.format(limit=limit)}\n\n{_WHERE}"
    kept = table[: limit - len(ending)].rpartition("\n")[0]
    return f"{kept.rstrip()}{ending}"
