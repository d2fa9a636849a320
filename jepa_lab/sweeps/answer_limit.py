"""A limit of the time that a database server may take for an answer.

libpq waits for ever for the answer of a server whose machine acknowledges every packet: one that hangs, or a proxy in
front of one that is gone. What ends the waiting is the end of the connection, which another thread can bring about.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from typing import Any

ANSWER_SECONDS = 20.0
_MOST_TIMES = 4
"""A call may take this many times as long at most: Ctrl-C is heard, and an outage over, only when it is cut off."""


class AnswerLimit:
    """Cuts the connections of a pool while a call that uses one of them has had no answer for too long.

    The call then fails as if the server had cut it, and the next one has twice the time, up to a limit: the call may
    have been at work all the while, as on thousands of trials. The connections are those of psycopg.
    """

    def __init__(self) -> None:
        self._open: list[Any] = []  # connections of the driver
        self._seconds = ANSWER_SECONDS

    def opened(self, connection: Any, record: object) -> None:
        """Hook of SQLAlchemy's pool: a connection was made."""
        self._open = [each for each in self._open if not each.closed]
        self._open.append(connection)

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """A call within this block is cut off when it has taken too long."""
        timer = threading.Timer(self._seconds, self._cut)
        timer.daemon = True
        timer.start()
        try:
            yield
            self._seconds = ANSWER_SECONDS
        finally:
            timer.cancel()

    def close(self) -> None:
        """Close the connections of a pool that is given up."""
        for connection in self._open:
            connection.close()

    def _cut(self) -> None:
        self._seconds = min(2 * self._seconds, _MOST_TIMES * ANSWER_SECONDS)
        for connection in self._open:
            if not connection.closed:
                with socket.socket(fileno=os.dup(connection.fileno())) as its, contextlib.suppress(OSError):
                    its.shutdown(socket.SHUT_RDWR)  # an error: the other end has done it
