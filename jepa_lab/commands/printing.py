"""What commands print: their product, and messages to the standard error."""

from __future__ import annotations

import errno
import signal
import sys

import click

from jepa_lab.errors import RunStopped
from jepa_lab.output import lost_output

_READER_LEFT = 128 + signal.SIGPIPE


class PrintingCommand(click.Command):
    """A command whose only product is what it prints."""

    def invoke(self, ctx: click.Context) -> object:
        result = super().invoke(ctx)
        refuse_lost_output()
        return result


def refuse_lost_output() -> None:
    """Fail where the product of a command, which is what it has printed, did not arrive.

    Raises:
        RunStopped: it could not be written. SystemExit: the reader left (`| head`), which is no error.
    """
    lost = lost_output()
    if lost is None:
        return
    if lost.errno == errno.EPIPE:
        sys.exit(_READER_LEFT)
    raise RunStopped(f"the output is incomplete ({lost.strerror or lost}); free space there, or send it elsewhere")


def say(text: str) -> None:
    """A message to the standard error."""
    click.echo(without_credentials(text), err=True)


def without_credentials(text: str) -> str:
    """A message or traceback without the passwords of the URIs in it."""
    from jepa_lab.tracking.credentials import scrub  # pydantic comes with it, which a start need not wait for

    return scrub(text)
