"""The table as JSON values, with all digits."""

from __future__ import annotations

import csv
import io
import math
from typing import Any

from jepa_lab.reports.content import ReportInput, cleaned
from jepa_lab.reports.table import build_table
from jepa_lab.reports.table_csv import table_csv

_TEXTS = ("arm", "role", "metric")


def table_as_json(content: ReportInput) -> dict[str, Any]:
    """The lines of `table.csv` as objects, with null where nothing is known, and the sentences below the table."""
    table = build_table(cleaned(content))
    rows = csv.DictReader(io.StringIO(table_csv(table)))
    lines = [{name: _value(name, text) for name, text in row.items()} for row in rows]
    return {"baseline": content.baseline, "metric": content.metric, "table": lines, "notes": list(table.footnotes)}


def _value(name: str, text: str) -> str | float | bool | None:
    if name in _TEXTS:
        return text
    if name == "bold":
        return text == "True"
    number = float(text or "nan")
    return number if math.isfinite(number) else None
