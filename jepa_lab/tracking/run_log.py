"""The log of a run, `log.txt`: what was said, and the traceback of a crash."""

from __future__ import annotations

import logging
import sys
import textwrap
from pathlib import Path
from types import TracebackType
from typing import Any

from jepa_lab.errors import JepaLabError, printable
from jepa_lab.tracking.atomic import explain_os_error, explained_writes
from jepa_lab.tracking.credentials import ScrubbingFormatter

LOGGER = "jepa_lab"
_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


class _RunLogHandler(logging.FileHandler):
    """A file handler that leaves a full disk to the run itself, which stops at its next write and says so."""

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not (isinstance(error, OSError) and explain_os_error(error, Path(self.baseFilename))):
            super().handleError(record)


class _RunLogFormatter(ScrubbingFormatter):
    """One line a message, so that no name of a file can pass for a line of the log; tracebacks are indented."""

    def format(self, record: logging.LogRecord) -> str:
        own = logging.makeLogRecord(record.__dict__)
        own.exc_text = None  # another handler may have kept a traceback in its own format
        return super().format(own)

    def formatMessage(self, record: logging.LogRecord) -> str:
        return printable(super().formatMessage(record), "\t")

    def formatException(self, ei: Any) -> str:
        return textwrap.indent(printable(super().formatException(ei), "\n\t"), "  ")


class RunLog:
    """Copies the messages of the logger "jepa_lab" to a file until it is closed.

    As a context manager it also records how the block ended: the message of a user error, the traceback of
    anything else. These go to the file alone, not to the terminal.

    Args:
        path: the log file, which is continued.
    Raises:
        RunFolderError: if it cannot be written. RunStopped: if the disk is full.
    """

    def __init__(self, path: Path) -> None:
        with explained_writes(path):
            self._handler = _RunLogHandler(path, encoding="utf-8", errors="backslashreplace")
        self._handler.setFormatter(_RunLogFormatter(_FORMAT))
        self._logger = logging.getLogger(LOGGER)
        self._level_before = self._logger.level
        self._logger.setLevel(logging.INFO)
        self._logger.addHandler(self._handler)

    def close(self) -> None:
        """Detach from the logger and close the file."""
        self._logger.removeHandler(self._handler)
        self._logger.setLevel(self._level_before)
        self._handler.close()

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, JepaLabError):
            self._write(logging.ERROR, f"stopped: {error}")
        elif isinstance(error, Exception):
            self._write(logging.CRITICAL, "crashed", error)
        elif error is not None:  # KeyboardInterrupt, SystemExit
            self._write(logging.WARNING, f"stopped by {type(error).__name__}")
        self.close()

    def _write(self, level: int, message: str, error: BaseException | None = None) -> None:
        trace = None if error is None else (type(error), error, error.__traceback__)
        self._handler.handle(self._logger.makeRecord(LOGGER, level, __file__, 0, message, (), trace))
