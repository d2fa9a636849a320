"""What the public functions raise: errors whose message is meant for the user, in the words of whoever calls them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from jepa_lab.contracts import plugin_failure
from jepa_lab.errors import JepaLabError, disk_full

_RENAMED = {"from": "continue_from", "executor_option": "executor_options"}
"""Option -> argument, where they differ in more than their dashes."""
_COMMAND = re.compile(r"(`[^`]*`)")
_OPTION = re.compile(r"(?<![\w-])--(?P<name>\w[\w-]*)(?:=(?P<word>[a-z]\w*)|(?P<value>[ =](?=[\d'\"])))?")
_CALLED_BY_A_COMMAND: ContextVar[bool] = ContextVar("called by a command", default=False)


@contextmanager
def in_options() -> Iterator[None]:
    """For a command that calls a public function: messages keep the names of options."""
    token = _CALLED_BY_A_COMMAND.set(True)
    try:
        yield
    finally:
        _CALLED_BY_A_COMMAND.reset(token)


@contextmanager
def explained_errors(function: Callable[..., Any]) -> Iterator[None]:
    """Failures of plug-ins and of the disk as errors of ours; messages name arguments in place of options.

    Args:
        function: that was called; an option with the name of one of its parameters means that one.
    Raises:
        JepaLabError: that was raised. PluginError: the code of a plug-in failed. RunStopped: the disk is full.
    """
    try:
        yield
    except JepaLabError as error:
        if not _CALLED_BY_A_COMMAND.get():
            error.reword(lambda text: in_python(text, function))
        raise
    except Exception as error:
        failure = disk_full(error) or plugin_failure(error)
        if failure is None:
            raise
        raise failure from error


def in_python(text: str, function: Callable[..., Any]) -> str:
    """A message of the command line for somebody who has called this function: `--slots 4` is `slots=4`.

    Whole commands, which stand in backquotes, and options of other programs stay.
    """
    known = inspect.signature(function).parameters
    at_place = _OPTION.fullmatch(text) is not None

    def argument(found: re.Match[str]) -> str:
        option = found["name"].replace("-", "_")
        name = _RENAMED.get(option, option)
        if name not in known:
            return found[0]
        if found["word"] or found["value"]:
            return f"{name}={repr(found['word']) if found['word'] else ''}"
        return name if at_place else f"`{name}`"

    pieces = _COMMAND.split(text)
    return "".join(piece if piece.startswith("`") else _OPTION.sub(argument, piece) for piece in pieces)
