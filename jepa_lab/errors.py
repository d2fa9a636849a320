"""The few kinds of error that a user can meet, and the exit code of each.

A message says the place (field, file, line), the value, the rule and the remedy.
Anything that is not one of these is a mistake of our own: exit code 1 and a traceback.
"""

from __future__ import annotations

import unicodedata

_UNPRINTABLE = {"Cc", "Cf", "Cs", "Zl", "Zp"}
"""Unicode categories: control and format characters, surrogates, separators of lines and paragraphs."""


def printable(text: str, keep: str = "") -> str:
    """`text` with escapes for what would move a terminal's cursor, begin a line, or cannot be encoded.

    Args:
        keep: characters that stay, such as line feeds.
    """
    if text.isprintable():
        return text
    return "".join(
        _escape(char) if unicodedata.category(char) in _UNPRINTABLE and char not in keep else char for char in text
    )


def _escape(char: str) -> str:
    # Not \x for those behind ASCII: that stands for a byte of a name that is not UTF-8.
    return char.encode("unicode_escape").decode() if char.isascii() else f"\\u{ord(char):04x}"


class JepaLabError(Exception):
    """Base of the errors whose message is meant for the user.

    Any message can be printed and stored: what is not UTF-8 in the name of a file, or controls a terminal, is written
    as an escape.
    """

    exit_code = 2
    _kept = "\n\t"

    def __init__(self, *args: object) -> None:
        super().__init__(*(printable(arg, self._kept) if isinstance(arg, str) else arg for arg in args))


class ConfigError(JepaLabError):
    """A setting, a file or an option is wrong; nothing was started."""


class DataError(JepaLabError):
    """The data are missing, unreadable or do not fit the settings."""

    _kept = ""  # one line, whatever the names of files are


class DeviceError(JepaLabError):
    """The requested device, precision or compiler is not available here."""


class RunFolderError(JepaLabError):
    """A run folder cannot be written, is not a run, or belongs to another configuration."""


class RunInterrupted(JepaLabError):
    """Ctrl-C ended a run; it can be resumed."""

    exit_code = 130


class RunTerminated(RunInterrupted):
    """SIGTERM (exit code 143) or SIGHUP (129) ended a run; it can be resumed."""

    def __init__(self, message: str, number: int = 15) -> None:
        super().__init__(message)
        self.exit_code = 128 + number


class RunCrashed(JepaLabError):
    """A mistake of our own ended a run; the message names the log that holds the traceback."""

    exit_code = 1


class RunStopped(JepaLabError):
    """A good run was stopped from outside: disk, memory, non-finite numbers, a collapse."""

    exit_code = 3


class RunOutOfMemory(RunStopped):
    """The memory of the machine or of its accelerator is full."""


class RunPruned(RunStopped):
    """A search ended the run early, because its intermediate values were poor."""
