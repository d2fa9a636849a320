"""The few kinds of error that a user can meet, and the exit code of each.

A message says the place (field, file, line), the value, the rule and the remedy.
Anything that is not one of these is a bug in jepa-lab: exit code 1 and a traceback.
"""

from __future__ import annotations

import errno
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Key:
    """A setting that an error is about; in the text it appears with its section, as in `probe.data.root`.

    Attributes:
        name: relative to the section of whoever raises the error: a component names its own parameters.
        section: dotted key of the section that the setting is in, where it is known; empty for the whole pipeline.
    """

    name: str
    section: str | None = None

    def within(self, section: str | None) -> str:
        """The dotted key, for an error of this section."""
        home = section if self.section is None else self.section
        return f"{home}.{self.name}" if home else self.name


@dataclass(frozen=True)
class Problem:
    """What is wrong: the rule, the value and the remedy, and the settings that it is about as data.

    Attributes:
        parts: the text; `Key` for each setting that it names.
        keys: all settings that it is about, those of the text first.
    """

    parts: tuple[str | Key, ...]
    keys: tuple[Key, ...]

    def __init__(self, *parts: str | Key | Problem, keys: Iterable[str | Key] = ()) -> None:
        """Put the text together; a problem among its parts brings its own text and keys."""
        inner = [key for part in parts if isinstance(part, Problem) for key in part.keys]
        flat = [piece for part in parts for piece in (part.parts if isinstance(part, Problem) else (part,))]
        named = [part for part in flat if isinstance(part, Key)]
        more = [Key(key) if isinstance(key, str) else key for key in keys]
        object.__setattr__(self, "parts", tuple(flat))
        object.__setattr__(self, "keys", tuple(dict.fromkeys([*named, *more, *inner])))

    def printable(self, keep: str) -> Problem:
        """The same with escapes for what cannot be printed; see `printable`."""
        return self.reworded(lambda part: printable(part, keep))

    def reworded(self, change: Callable[[str], str]) -> Problem:
        """The same in other words, about the same keys."""
        return Problem(*(change(part) if isinstance(part, str) else part for part in self.parts), keys=self.keys)

    def text(self, section: str | None = None) -> str:
        """The sentence, with the keys of this section written out."""
        return "".join(part.within(section) if isinstance(part, Key) else str(part) for part in self.parts)

    def __str__(self) -> str:
        return self.text()

    def of(self, section: str) -> str:
        """The sentence as one about a section: it begins with one of its keys, or with the section."""
        begins_with_key = bool(self.parts) and isinstance(self.parts[0], Key)
        return self.text(section) if begins_with_key or not section else f"{section}: {self.text(section)}"


class JepaLabError(Exception):
    """Base of the errors whose message is meant for the user.

    Any message can be printed and stored: what is not UTF-8 in the name of a file, or controls a terminal, is written
    as an escape.

    Args:
        parts: the text, see `Problem`; usually one string.
        keys: settings that it is about, beside those that the text names by a `Key`.
        remedy: what to do, where somebody may want the rest without it; it follows the text after a semicolon.
        place: where the settings were written, where that is known.

    Attributes:
        problem: text and keys as data, without the remedy.
        section: dotted key of the section that the keys are relative to; None until `keys_within` says it.
        otherwise: keys that it is about where it names none itself.
        place: `file:line` or override; None until the boundary that knows the document says it.
    """

    exit_code = 2
    _kept = "\n\t"

    def __init__(
        self,
        *parts: str | Key | Problem,
        keys: Iterable[str | Key] = (),
        remedy: str | Problem | None = None,
        place: str | None = None,
    ) -> None:
        self.problem = Problem(*parts, keys=keys).printable(self._kept)
        self.remedy = None if remedy is None else Problem(remedy).printable(self._kept)
        super().__init__(*self.problem.parts)
        self.section: str | None = None
        self.otherwise: tuple[str, ...] = ()
        self.place = place

    def __str__(self) -> str:
        remedy = "" if self.remedy is None else f"; {self.remedy.text(self.section)}"
        place = "" if self.place is None else f"{printable(self.place)}: "
        return f"{place}{self.rule}{remedy}"

    @property
    def rule(self) -> str:
        """The text without place and remedy."""
        return self.problem.text(self.section)

    @property
    def keys(self) -> tuple[str, ...]:
        """The dotted keys of the settings that the error is about."""
        own = self.problem.keys if self.remedy is None else (*self.problem.keys, *self.remedy.keys)
        keys = own or tuple(map(Key, self.otherwise))
        return tuple(dict.fromkeys(key.within(self.section) for key in keys))

    @property
    def lines(self) -> tuple[str, ...]:
        """The problems one by one, each with its place."""
        return (str(self),)

    def relate_to(self, section: str, *otherwise: str) -> None:
        """Say which section the keys are relative to, unless somebody nearer has.

        Args:
            otherwise: keys that the error is about if it names none.
        """
        if self.section is None:
            self.section, self.otherwise = section, otherwise

    def locate(self, place: str) -> None:
        """Say where the settings were written, unless that is known."""
        self.place = place if self.place is None else self.place

    def reword(self, change: Callable[[str], str]) -> None:
        """Change the words of text, remedy and place, but not the keys."""
        self.problem = self.problem.reworded(change)
        self.remedy = None if self.remedy is None else self.remedy.reworded(change)
        self.place = None if self.place is None else change(self.place)
        self.args = self.problem.parts


@contextmanager
def keys_within(section: str, *otherwise: str) -> Iterator[None]:
    """Keys of errors raised inside are relative to this section of the pipeline.

    Args:
        otherwise: keys that an error is about if it names none.
    Raises:
        JepaLabError: that was raised, with its section.
    """
    try:
        yield
    except JepaLabError as error:
        error.relate_to(section, *otherwise)
        raise


class ConfigError(JepaLabError):
    """A setting, a file or an option is wrong; nothing was started."""


class ConfigProblems(ConfigError):
    """Several settings are wrong.

    Args:
        problems: one line each, with its place.
    """

    def __init__(self, *problems: str) -> None:
        super().__init__(*problems)

    def __str__(self) -> str:
        return "\n".join(self.lines if self.place is None else (f"{printable(self.place)}:", *self.lines))

    @property
    def lines(self) -> tuple[str, ...]:
        return tuple(str(each) for each in self.args)

    def locate(self, place: str) -> None:
        """Each problem has its place already."""


class DataError(JepaLabError):
    """The data are missing, unreadable or do not fit the settings."""

    _kept = ""  # one line, whatever the names of files are


class PluginError(JepaLabError):
    """A component of a third party broke its contract, or raised an exception."""


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
    """A bug in jepa-lab ended a run; the message names the log that holds the traceback."""

    exit_code = 1


class RunStopped(JepaLabError):
    """A good run was stopped from outside: disk, memory, non-finite numbers, a collapse."""

    exit_code = 3


class StorageUnavailable(RunStopped):
    """The database or the file that a sweep keeps its trials in could not be read or written."""


class TrackerUnreachable(JepaLabError):
    """A command needs the tracker, which did not answer or failed; it may later."""

    exit_code = 3


_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}


def disk_full(error: Exception) -> RunStopped | None:
    """What a failed write means to the user where nobody nearer has said it; None for any other error."""
    if not isinstance(error, OSError) or error.errno not in _DISK_FULL:
        return None
    where = "a file" if error.filename is None else str(error.filename)
    return RunStopped(f"{where} cannot be written ({error.strerror}); free space there and try again")


class RunOutOfMemory(RunStopped):
    """The memory of the machine or of its accelerator is full."""


class RunPruned(RunStopped):
    """A search ended the run early, because its intermediate values were poor."""
