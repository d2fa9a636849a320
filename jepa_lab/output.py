"""Standard output and standard error that never decide how a command ends.

A terminal can be closed, a reader can leave (`| head`), the disk behind a redirect can fill up, and another program
can make the terminal non-blocking: every write may fail, at any moment. Within `unfailing_output` no write raises.
What cannot be written is dropped and the first failure is remembered, so that a command whose only product is what it
prints can say at its end that it was lost. `print`, click, rich, warnings and plug-ins all write through these streams.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import select
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_PATIENCE_SECONDS = 10.0
"""How long a write waits for a non-blocking terminal or pipe that takes nothing."""

_NOBODY_READS = {errno.EPIPE, errno.EIO, errno.ENXIO, errno.EBADF}
"""A reader that left and a terminal that was closed: whoever did that knows."""


@contextlib.contextmanager
def unfailing_output() -> Iterator[None]:
    """Within, writing to `sys.stdout` and `sys.stderr` raises no OSError, and takes every character in any locale.

    Streams that a notebook or a test has put in their place are left alone. Blocks may be nested.
    """
    before = sys.stdout, sys.stderr
    _open_closed_descriptors()
    sys.stderr = _unfailing(sys.stderr, 2)
    stderr = sys.stderr

    def warn(error: OSError) -> None:
        reason = error.strerror or error
        print(f"warning: standard output cannot be written ({reason}); continuing without it", file=stderr, flush=True)

    sys.stdout = _unfailing(sys.stdout, 1, warn)
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


def lost_output() -> OSError | None:
    """Why part of the standard output could not be written; None if nothing was lost."""
    return sys.stdout.lost if isinstance(sys.stdout, UnfailingText) else None


class UnfailingDescriptor(io.RawIOBase):
    """Writes to a file descriptor; what cannot be written is dropped.

    Args:
        tell: called with the first failure that somebody may still want to know about.
    """

    def __init__(self, descriptor: int, tell: Callable[[OSError], None] | None = None) -> None:
        super().__init__()
        self.lost: OSError | None = None
        self._descriptor, self._tell = descriptor, tell
        self._patience = _PATIENCE_SECONDS

    def write(self, data: ReadableBuffer, /) -> int:
        rest = memoryview(data).cast("B")
        length = len(rest)
        try:
            while rest:
                rest = rest[self._write_some(rest) :]
        except OSError as error:
            self._lose(error)
        return length

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def fileno(self) -> int:
        return self._descriptor

    def _write_some(self, data: memoryview) -> int:
        deadline = time.monotonic() + self._patience
        while True:
            try:
                written = os.write(self._descriptor, data)
            except BlockingIOError:
                left = deadline - time.monotonic()
                if left <= 0:
                    self._patience = 0.0  # or a terminal that is stuck would hold up every line
                    raise
                select.select([], [self._descriptor], [], left)
            else:
                self._patience = _PATIENCE_SECONDS
                return written

    def _lose(self, error: OSError) -> None:
        first, self.lost = self.lost is None, self.lost or error
        if first and self._tell is not None and error.errno not in _NOBODY_READS:
            self._tell(error)


class UnfailingText(io.TextIOWrapper):
    """A text stream over an `UnfailingDescriptor`; a line is written as one piece."""

    def __init__(self, raw: UnfailingDescriptor, encoding: str) -> None:
        super().__init__(io.BufferedWriter(raw), encoding=encoding, errors="backslashreplace", line_buffering=True)
        self._descriptor = raw

    @property
    def lost(self) -> OSError | None:
        """The first failure to write."""
        return self._descriptor.lost


def _unfailing(stream: TextIO | None, number: int, tell: Callable[[OSError], None] | None = None) -> TextIO:
    """The stream, or one in its place that does not fail.

    Args:
        stream: None where Python found the descriptor closed. number: of the descriptor that the stream usually has.
    """
    if stream is None:
        return UnfailingText(UnfailingDescriptor(number, tell), "utf-8")
    if isinstance(stream, UnfailingText) or not isinstance(stream, io.TextIOWrapper):
        return stream
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):  # in memory, or closed
        return stream
    with contextlib.suppress(OSError):
        stream.flush()
    return UnfailingText(UnfailingDescriptor(descriptor, tell), stream.encoding)


def _open_closed_descriptors() -> None:
    """Occupy those of 0, 1 and 2 that are closed (`>&-`), or the next file to be opened would get what is printed."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free, which is this one
            os.set_inheritable(number, True)
