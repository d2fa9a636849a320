"""Connections that end when the machine at their other end is gone.

A process that dies closes its connections, and the others hear of it at once. A machine that loses its power or its
network closes nothing: whoever waits for it would wait for ever. The kernel can ask such a machine whether it is still
there. It is asked to here, rather than each process sending signs of life, because it answers for a process that is
busy for long, too.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch.distributed as dist

MACHINE_IS_LOST = timedelta(minutes=5)
"""So long may a network be down without the end of a run."""

set_timeout: Any = getattr(dist, "set_timeout", None) or dist.distributed_c10d._set_pg_timeout
"""How long the collectives of a group may take, from now on; the second name is that of PyTorch before 2.14."""


@contextmanager
def noticing_lost_machines() -> Iterator[None]:
    """TCP connections that are opened within fail when the other machine has not answered for `MACHINE_IS_LOST`.

    PyTorch neither sets this for its connections nor gives them out; so these are found among the descriptors of the
    process.
    """
    before = set(_open_sockets().values())
    try:
        yield
    finally:
        for descriptor, identity in _open_sockets().items():
            if identity not in before:
                _ask_for_answers(descriptor)


def _open_sockets() -> dict[int, tuple[int, int]]:
    """By descriptor, what tells a socket from one that had the same descriptor before."""
    found = {}
    for name in os.listdir("/dev/fd"):
        try:
            status = os.fstat(int(name))
        except OSError:  # closed meanwhile, such as the one of this list
            continue
        if stat.S_ISSOCK(status.st_mode):
            found[int(name)] = (status.st_dev, status.st_ino)
    return found


def _ask_for_answers(descriptor: int) -> None:
    try:
        copy = socket.socket(fileno=os.dup(descriptor))
    except OSError:  # closed meanwhile
        return
    with copy:
        if copy.family not in (socket.AF_INET, socket.AF_INET6) or copy.type != socket.SOCK_STREAM:
            return
        seconds = int(MACHINE_IS_LOST.total_seconds())
        copy.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in (
            ("TCP_KEEPIDLE", max(1, seconds // 5)),  # where nothing is on its way: ask after a minute,
            ("TCP_KEEPINTVL", max(1, seconds // 10)),  # every half minute,
            ("TCP_KEEPCNT", 8),  # eight times
            ("TCP_USER_TIMEOUT", seconds * 1000),  # where something was sent and not received
        ):
            if hasattr(socket, option):  # macOS has other ones, and one machine
                copy.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
