"""Tracking URIs: which are accepted, and what they mean here."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import urlsplit

from jepa_lab.tracking.credentials import without_credentials

_SCHEMES = ("sqlite", "postgresql", "mysql", "mssql", "http", "https", "databricks")


def check_uri(uri: str) -> None:
    """Refuse what is no tracking URI, without repeating it: it may hold a password.

    Raises:
        ValueError: with the rule and the remedy.
    """
    scheme, mark, rest = uri.partition("://")
    if scheme.partition("+")[0] not in _SCHEMES or not (mark or scheme == "databricks"):
        raise ValueError(
            f"uri must begin with one of {', '.join(f'{name}://' for name in _SCHEMES)}; "
            "for a file use sqlite:///path/to/mlflow.db (MLflow no longer takes plain folders)"
        )
    if scheme.partition("+")[0] == "sqlite":
        if not rest.startswith("/") or rest in ("/", "/:memory:"):
            raise ValueError(
                "uri needs a file after sqlite:/// (a database in memory would end with the process), "
                "for example sqlite:///mlflow.db"
            )
        return
    try:
        parts = urlsplit(uri)
        wrong = parts.port == 0
    except ValueError:
        wrong = True
    # An '@' further on is the end of a password that holds '/', '?' or '#' and would be taken for something else.
    if wrong or "@" in "".join(parts[2:]) or re.search(r"\s", uri):
        raise ValueError(
            "uri has no valid port after its host, or a blank or '@' behind it; in a password write '/', '@', ':', "
            "'?', '#' and a blank as %2F, %40, %3A, %3F, %23 and %20"
        )
    if parts.scheme in ("http", "https") and (parts.query or parts.fragment):
        raise ValueError(
            "uri of a tracking server ends with its path, without '?' or '#'; give an access token in the environment "
            "variable MLFLOW_TRACKING_TOKEN"
        )


def check_artifact_location(location: str) -> None:
    """Refuse a password, without repeating it: MLflow would store the location, and show it, as it is.

    Raises:
        ValueError: with the rule and the remedy.
    """
    if without_credentials(location) != location and ":" in location.partition("://")[2].rpartition("@")[0]:
        raise ValueError(
            "artifact_location must not contain a password, because MLflow stores and shows it; let the server that "
            "keeps the artifacts have it (`mlflow server --artifacts-destination ...`)"
        )


def default_uri() -> str:
    """The store that is used when none is named: `mlflow.db` in the current folder."""
    return f"sqlite:///{Path.cwd() / 'mlflow.db'}"


def default_artifact_location(uri: str) -> str | None:
    """The folder `mlflow-artifacts` beside a SQLite file, as a URI; None for servers, which choose."""
    database = sqlite_path(uri)
    return None if database is None else (database.absolute().parent / "mlflow-artifacts").as_uri()


def sqlite_path(uri: str) -> Path | None:
    """The database file of a SQLite URI; None for every other tracker."""
    scheme, _, rest = uri.partition("://")
    if scheme.partition("+")[0] != "sqlite":
        return None
    return Path(rest.removeprefix("/").partition("?")[0])
