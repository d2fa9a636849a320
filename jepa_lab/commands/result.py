"""What a command gives, printed in one of three ways: for people, as JSON, or as what a script needs next."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec

import click

from jepa_lab.errors import JepaLabError

P = ParamSpec("P")


@dataclass(frozen=True)
class CommandResult:
    """What a command gives.

    Attributes:
        document: gives JSON values, for `--json`.
        short: what `--quiet` prints, such as the path of what was written; None for nothing.
        show: prints it for people.
        error: what went wrong although there is a result; raised once that has been printed.
        exit_code: other than 0 where the result says that something is still to be done.
    """

    document: Callable[[], Any]
    short: str | None
    show: Callable[[], None]
    error: JepaLabError | None = None
    exit_code: int = 0


def prints_result(quiet: str) -> Callable[[Callable[P, CommandResult | None]], Callable[..., None]]:
    """Decorator of a command: adds `--json` and `--quiet`, and prints what the function returns.

    With `--json` the standard output holds one JSON document and nothing else: progress and messages go to the
    standard error. With `--quiet` they are left out. None is returned where another process prints.

    Args:
        quiet: help of `--quiet`, which says what is still printed.
    """

    def decorate(function: Callable[P, CommandResult | None]) -> Callable[..., None]:
        @click.option(
            "--json", "as_json", is_flag=True, help="Print the result as JSON, and messages to the standard error."
        )
        @click.option("--quiet", "-q", is_flag=True, help=quiet)
        @functools.wraps(function)
        def command(*arguments: P.args, **keywords: P.kwargs) -> None:
            as_json, is_quiet = bool(keywords.pop("as_json")), bool(keywords.pop("quiet"))
            with _messages_elsewhere(as_json, is_quiet):
                result = function(*arguments, **keywords)
                document = result.document() if result is not None and as_json else None
            if result is not None:
                _print(result, as_json, is_quiet, document)

        return command

    return decorate


def wrote(file: Path) -> CommandResult:
    """What a command gives that has written one file."""
    return CommandResult(lambda: {"file": str(file)}, str(file), lambda: click.echo(f"wrote {file}"))


def examples(*commands: str, before: str = "") -> str:
    """The epilog of a command: example lines, as they are typed.

    Args:
        before: a paragraph above them.
    """
    lines = "\n".join(f"  {command}" for command in commands)
    return f"{before}\n\n\b\nExamples:\n{lines}" if before else f"\b\nExamples:\n{lines}"


@contextlib.contextmanager
def _messages_elsewhere(as_json: bool, is_quiet: bool) -> Iterator[None]:
    """Keep the standard output free of what is no result."""
    with contextlib.ExitStack() as stack:
        if is_quiet:
            nowhere = stack.enter_context(open(os.devnull, "w", encoding="utf-8"))
            stack.enter_context(contextlib.redirect_stdout(nowhere))
        elif as_json:
            stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        yield


def _print(result: CommandResult, as_json: bool, is_quiet: bool, document: Any) -> None:
    if as_json:
        click.echo(json.dumps(document, indent=1, allow_nan=False))
    elif not is_quiet:
        result.show()
    elif result.short is not None:
        click.echo(result.short)
    if result.error is not None:
        raise result.error
    if result.exit_code:
        sys.exit(result.exit_code)
