"""Tracking URIs: which are accepted, what they mean here, and how a path becomes one and is read back.

A path is not a URI: `%`, `?` and `#` are letters of a path and signs of a URI. The URI of a SQLite file is built and
read by SQLAlchemy, which percent-encodes and decodes it (since 2.1) and which MLflow and Optuna open it with. It is
imported here alone, inside functions: `tracking: none` runs without it.
"""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING
from urllib.parse import urlsplit
from urllib.request import url2pathname

from jepa_lab.errors import ConfigError
from jepa_lab.tracking.credentials import without_credentials

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

_SCHEMES = ("sqlite", "postgresql", "mysql", "mssql", "http", "https", "databricks")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:")
# What Python's driver of SQLite takes after '?'. Without `uri`, which would make the path a URI within the URI.
_SQLITE_OPTIONS = {"timeout", "isolation_level", "detect_types", "check_same_thread", "cached_statements"}


def check_uri(uri: str) -> None:
    """Refuse what is no tracking URI, without repeating it: it may hold a password.

    Raises:
        ValueError: with the rule and the remedy.
    """
    scheme, mark, _ = uri.partition("://")
    if scheme.partition("+")[0] not in _SCHEMES or not (mark or scheme == "databricks"):
        raise ValueError(
            f"uri must begin with one of {', '.join(f'{name}://' for name in _SCHEMES)}; "
            "for a file use sqlite:///path/to/mlflow.db (MLflow no longer takes plain folders)"
        )
    if _is_sqlite(uri):
        _check_sqlite_uri(uri)
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


def _check_sqlite_uri(uri: str) -> None:
    """Refuse a SQLite URI that names no file, or another file than its author may mean.

    Raises:
        ValueError: with the rule and the remedy.
    """
    head, mark, options = uri.partition("?")
    written = head.partition("://")[2]
    if not written.startswith("/") or written in ("/", "/:memory:"):
        raise ValueError(
            "uri needs a file after sqlite:/// (a database in memory would end with the process), "
            "for example sqlite:///mlflow.db"
        )
    pairs = [option.partition("=") for option in options.split("&")] if mark else []
    if any(name not in _SQLITE_OPTIONS or not value for name, _, value in pairs):
        raise ValueError(
            "uri has a '?' that begins no option of SQLite, as timeout=20 would be; in a path write '?' as %3F and "
            "'%' as %25"
        )
    literal, database = Path(written.removeprefix("/")), sqlite_path(uri)
    assert database is not None, "it is a SQLite URI"
    if {"\0", "\N{REPLACEMENT CHARACTER}"} & set(str(database)):
        raise ValueError("uri has percent escapes that are not those of a path in UTF-8; in a path write '%' as %25")
    if _may_mean_another_file(uri, literal, database):
        raise ValueError(
            f"uri has percent escapes and therefore means the file {database}, but a folder or file of the name "
            f"{literal} exists as well: write {sqlite_uri(literal)} for that one; for the first, make its folder and "
            f"write {sqlite_uri(database)}"
        )


def _may_mean_another_file(uri: str, literal: Path, database: Path) -> bool:
    """Whether the text of a URI may be a path that was put in without escapes (`sqlite:///$PWD/mlflow.db`)."""
    if not (literal.is_file() or (literal.parent != database.parent and literal.parent.is_dir())):
        return False
    return literal != database and not (uri == absolute_uri(uri) and database.parent.is_dir())


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
    if location.startswith("file:") and set(location) & {"?", "#"}:
        raise ValueError(
            "artifact_location is a file: URI with '?' or '#', which end its path; write them as %3F and %23, or give "
            "a plain path"
        )


def default_uri() -> str:
    """The store that is used when none is named: `mlflow.db` in the current folder."""
    return sqlite_uri(Path("mlflow.db"))


def default_artifact_location(uri: str) -> str | None:
    """The folder `mlflow-artifacts` beside a SQLite file, as a URI; None for servers, which choose."""
    database = sqlite_path(uri)
    return None if database is None else (database.absolute().parent / "mlflow-artifacts").as_uri()


def artifact_uri(location: str) -> str:
    """An artifact location as the URI that MLflow gets: a path, or a file: URI, becomes an absolute file: URI.

    MLflow would decode a plain path as if it were a URI, and take a relative one from wherever its process is.
    """
    if location.startswith("file:"):
        return Path(url2pathname(urlsplit(location).path)).absolute().as_uri()
    return location if _SCHEME.match(location) else Path(location).absolute().as_uri()


def sqlite_uri(database: Path) -> str:
    """The URI of a SQLite file, absolute and percent-encoded.

    Raises:
        ConfigError: if the name of a folder above it is not UTF-8, or SQLAlchemy is missing.
    """
    path = str(database.absolute())
    try:
        path.encode()
    except UnicodeEncodeError:
        raise ConfigError(
            f"the path {path!r} is not UTF-8, which the URI of a SQLite store must be; rename the folder, run in "
            "another one, or set `tracking: none`"
        ) from None
    return _rendered(_sqlalchemy_urls().URL.create("sqlite", database=path))


def sqlite_path(uri: str) -> Path | None:
    """The database file of a SQLite URI, decoded; None for every other tracker."""
    if not _is_sqlite(uri):
        return None
    return Path(_parsed(uri).database or "")


def absolute_uri(uri: str) -> str:
    """The URI with a SQLite file's path absolute and encoded as `sqlite_uri` does it; others stay as they are."""
    database = sqlite_path(uri)
    if database is None:
        return uri
    return _rendered(_parsed(uri).set(database=str(database.absolute())))


def uri_for_mlflow(uri: str) -> str:
    """The URI that MLflow is given: without a slash in the path of a SQLite file.

    Before it opens the file, MLflow makes the folder that it takes for its parent, without decoding the path. In
    `a%20b`, whose URI has `a%2520b`, that would leave a folder `a%2520b` beside it; encoded slashes leave no parent.
    """
    if not _is_sqlite(uri):
        return uri
    head, mark, options = absolute_uri(uri).partition("?")
    scheme, _, path = head.partition(":///")
    return f"{scheme}:///{path.replace('/', '%2F')}{mark}{options}"


def _is_sqlite(uri: str) -> bool:
    return uri.partition("://")[0].partition("+")[0] == "sqlite"


def _rendered(url: URL) -> str:
    return url.render_as_string(hide_password=False)


def _parsed(uri: str) -> URL:
    """A database URI as SQLAlchemy reads it."""
    return _sqlalchemy_urls().make_url(uri)


def _sqlalchemy_urls() -> ModuleType:
    """SQLAlchemy's module of URLs.

    Raises:
        ConfigError: if SQLAlchemy is missing.
    """
    try:
        return importlib.import_module("sqlalchemy.engine.url")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "sqlalchemy":
            raise
        raise ConfigError(
            "tracking: mlflow needs the package sqlalchemy, which is not installed; `pip install mlflow`, or set "
            "`tracking: none`"
        ) from None
