"""Calls to MLflow: what their failures mean, and that none of them lasts for ever."""

from __future__ import annotations

import contextlib
import re
import signal
import sqlite3
import threading
from collections.abc import Iterator
from types import FrameType

from jepa_lab.tracking.credentials import scrub

# A request has a timeout of its own (see mlflow_store), but only between two bytes of the answer.
LONGEST_CALL_SECONDS = 600.0
_SLOWEST_UPLOAD = 100_000  # bytes a second that a line must carry at least
_URLLIB3_DETAILS = re.compile(r"with exception HTTPS?ConnectionPool\(.*\(Caused by (.*)\)$")


class TrackerAway(Exception):
    """The tracker did not do what it was asked; it may later. The message holds no credentials."""


class RunUnknown(TrackerAway):
    """The tracker answered that it has no such run: its store is another one, or an older copy."""


class RunDeleted(TrackerAway):
    """Somebody deleted the run in MLflow; the tracker itself is there."""


@contextlib.contextmanager
def tracker_calls(upload_bytes: int = 0) -> Iterator[None]:
    """Turn whatever MLflow, its database or its HTTP client raise within the block into `TrackerAway`.

    ValueError and ParseError are what MLflow raises when an answer is not JSON, or JSON of something else.

    Args:
        upload_bytes: size of the files that the block sends, which may take longer than a request.
    """
    import sqlalchemy.exc
    from google.protobuf.json_format import ParseError  # type: ignore[import-untyped]
    from mlflow.exceptions import MlflowException

    try:
        with _limited(LONGEST_CALL_SECONDS + upload_bytes / _SLOWEST_UPLOAD):
            yield
    except MlflowException as error:
        raise (RunUnknown if _is_unknown(error) else TrackerAway)(_reason(error)) from error
    except ModuleNotFoundError as error:
        raise TrackerAway(
            f"tracking.uri needs the package {error.name}, which is not installed: `pip install` its distribution"
        ) from error
    except (sqlalchemy.exc.SQLAlchemyError, sqlite3.Error, OSError, ValueError, ParseError) as error:
        raise TrackerAway(_reason(error)) from error


def _is_unknown(error: Exception) -> bool:
    """Whether the tracker itself said that it lacks what it was asked about; a 404 of something before it is not."""
    from mlflow.exceptions import MlflowException, RestException

    assert isinstance(error, MlflowException)
    from_server = isinstance(error, RestException) or "API request" not in str(error)
    return from_server and error.error_code == "RESOURCE_DOES_NOT_EXIST"


def _reason(error: Exception) -> str:
    """What went wrong in one line, without credentials and without the query that urllib3 repeats."""
    first = (scrub(str(error)).splitlines() or [""])[0]
    return _URLLIB3_DETAILS.sub(r"(\1)", first)[:500] or type(error).__name__


@contextlib.contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """End the block by TimeoutError after so many seconds (in the main thread, which has the process's timer)."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def expire(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"no complete answer within {seconds:.0f} s")

    handler_before = signal.signal(signal.SIGALRM, expire)
    timer_before = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, *timer_before)
        signal.signal(signal.SIGALRM, handler_before)
