"""Optuna's storage in a database: how its URL is opened, and which of the database's errors mean what."""

from __future__ import annotations

import weakref
from dataclasses import replace
from typing import Any

from optuna.storages import BaseStorage, get_storage
from sqlalchemy import event
from sqlalchemy.engine import URL, ExceptionContext, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, InternalError, OperationalError

from jepa_lab.errors import ConfigError
from jepa_lab.sweeps.answer_limit import AnswerLimit
from jepa_lab.sweeps.outages import Patience, Unanswered
from jepa_lab.sweeps.patient_storage import FindingStorage, PatientStorage
from jepa_lab.tracking.credentials import scrub, without_credentials

OPENING_SECONDS = 10.0
"""How long a database is waited for that has not answered yet: its URL may be wrong."""
_LIBPQ = {
    "connect_timeout": 10,  # else the kernel's minutes, where a machine has vanished
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,  # milliseconds
}
_LIBPQ_DRIVERS = {"psycopg", "psycopg2"}
_PACKAGES = {
    "psycopg": "jepa-lab[postgresql]",
    "psycopg2": "psycopg2-binary",
    "MySQLdb": "mysqlclient",
    "pymysql": "PyMySQL",
}
"""Module of a driver -> what pip calls it."""
_FAILURES = (OperationalError, InterfaceError, InternalError)
"""What drivers raise where the database, not the query, is in trouble. InternalError: it is read-only, as a standby."""
_USER = "check the user and the password, which PGPASSWORD or ~/.pgpass may also give"
_WRONG = {
    "authentication failed": _USER,
    "no password supplied": _USER,
    "no pg_hba.conf entry": _USER,
    "Access denied": _USER,
    'role "': _USER,
    "does not exist": "make the database with `createdb`, or check its name",
    "Unknown database": "make the database, or check its name",
    "Name or service not known": "check the name of the host",
    "No address associated with hostname": "check the name of the host",
    "unable to open database file": "check the folder of the file",
    "readonly database": "check the permissions of the file",
}
"""Words of PostgreSQL, libpq, MySQL and SQLite about a URL that will not work later, either -> the remedy."""
_URL_RULE = (
    "give an Optuna URL such as postgresql+psycopg://USER@HOST:5432/DATABASE or sqlite:///FILE; in a password write "
    "'@', ':' and '/' as %40, %3A and %2F"
)


def open_database(url: str, patience: Patience) -> BaseStorage:
    """Optuna's storage in the database of a URL.

    Raises:
        ConfigError: the URL cannot be right, or the package of its driver is not installed.
        StorageUnavailable: the database does not answer.
    """
    _check_url(url)
    name, limit = without_credentials(url), AnswerLimit()

    def connect(again: bool) -> FindingStorage:
        try:
            with limit.kept():
                return _connect(url, limit)
        except BaseException:
            limit.close()
            raise

    opening = replace(patience, seconds=min(patience.seconds, OPENING_SECONDS), meanwhile="", remedy=Patience.remedy)
    storage = opening.until_answered(name, connect)
    event.listen(storage.engine, "handle_error", _on_error)
    patient = PatientStorage(get_storage(storage), name, patience, limit)
    weakref.finalize(patient, storage.engine.dispose)  # nobody closes a storage of Optuna
    return patient


def _check_url(url: str) -> None:
    """Refuse what would be taken for another database, without repeating it: it may hold a password.

    Raises:
        ConfigError: it cannot be read, or the end of its password would be taken for the host.
    """
    try:
        is_wrong = "@" in (make_url(url).host or "")
    except (ArgumentError, ValueError):
        is_wrong = True
    if is_wrong:
        raise ConfigError(f"--storage is not the URL of a database; {_URL_RULE}")


def _connect(url: str, limit: AnswerLimit) -> FindingStorage:
    try:
        return FindingStorage(url, {"pool_pre_ping": True, **_libpq_options(make_url(url), limit)})
    except ImportError as error:
        raise ConfigError(_missing_driver(error)) from error
    except Exception as error:  # whatever SQLAlchemy, its driver or Optuna raise
        found = error if isinstance(error, DBAPIError) else error.__cause__
        if not isinstance(found, DBAPIError):
            raise ConfigError(f"--storage cannot be opened ({_reason(error)}); {_URL_RULE}") from error
        said, reason = str(found.orig), _reason(found)
        remedy = next((remedy for words, remedy in _WRONG.items() if words in said), None)
        if remedy is not None:
            raise ConfigError(f"--storage cannot be opened ({reason}); {remedy}") from error
        # Tables that "already exist" are being made by another process at this moment.
        if isinstance(found, _FAILURES) or "already exists" in said:
            raise Unanswered(reason) from error
        raise ConfigError(f"--storage cannot be opened ({reason}); check its permissions on that database") from error


def _libpq_options(url: URL, limit: AnswerLimit) -> dict[str, Any]:
    """Limits of waiting for a machine that has vanished, except where the URL has its own."""
    if url.get_driver_name() not in _LIBPQ_DRIVERS:
        return {}
    arguments = {name: value for name, value in _LIBPQ.items() if name not in url.query}
    return {"connect_args": arguments, "pool_events": [(limit.opened, "connect")]}


def _missing_driver(error: ImportError) -> str:
    """The sentence for a database whose driver is not installed, or is not complete."""
    cause = error.__cause__ if isinstance(error.__cause__, ImportError) else error
    module = cause.name or "psycopg"  # which names no module where it misses libpq
    package = _PACKAGES.get(module.partition(".")[0], module)
    return f'--storage needs the driver {module}, which is not installed ({_reason(cause)}); `pip install "{package}"`'


def _on_error(context: ExceptionContext) -> None:
    """Tells trouble of the database apart from that of a query, before Optuna makes one kind of error of all.

    Raises:
        Unanswered: the call may be repeated.
    """
    if context.is_pre_ping:  # of a connection that the pool now replaces
        return
    if context.is_disconnect or isinstance(context.sqlalchemy_exception, _FAILURES):
        raise Unanswered(_reason(context.original_exception))


def _reason(error: BaseException) -> str:
    """What a driver says, without credentials and the hints on its further lines."""
    text = str(error.orig if isinstance(error, DBAPIError) else error)
    return scrub(text).strip().partition("\n")[0] or type(error).__name__
