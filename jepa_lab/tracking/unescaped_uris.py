"""SQLite URIs of `run.json` version 1, into which the path was put as it was, without escapes.

Without SQLAlchemy: a run folder is read where no tracker is used, too.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

if TYPE_CHECKING:
    from jepa_lab.tracking.description import TrackerSettings


def with_escaped_uri(settings: TrackerSettings, given: str | None) -> TrackerSettings:
    """The settings with the URI percent-encoded, so that it means the file that its author meant.

    Args:
        given: `tracking.uri` of the pipeline; None or "null" where it had none. A URI that the user had escaped
            stays as it is if its file is there: that is where MLflow put the record.
    """
    scheme, mark, rest = settings.uri.partition(":///")
    if scheme.partition("+")[0] != "sqlite" or not mark:
        return settings
    path, options = _split(rest)
    if settings.uri == given and Path(unquote(path)).is_file():
        return settings
    return dataclasses.replace(
        settings,
        uri=f"{scheme}:///{quote(path, safe=' +/')}{options}",
        artifact_location=_artifact_location(settings.artifact_location, rest, path),
    )


def _split(rest: str) -> tuple[str, str]:
    """Path and options (`?timeout=5`); a '?' before a '/' is part of the path."""
    path, mark, options = rest.partition("?")
    return (rest, "") if "/" in options or "=" not in options else (path, f"{mark}{options}")


def _artifact_location(location: str | None, rest: str, path: str) -> str | None:
    """The artifact folder; the default one lay beside what the URI was read as, which may have been cut at a '?'."""
    return _beside(path) if location is not None and location == _beside(rest.partition("?")[0]) else location


def _beside(database: str) -> str:
    return (Path(database).absolute().parent / "mlflow-artifacts").as_uri()
