"""Locks and forked children."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from jepa_lab.tracking.locks import FileLock

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def forked_child() -> tuple[int, int]:
    """A child that lives until its pipe is closed: its process number, and the pipe."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    os.close(reading)
    return child, writing


def test_a_lock_is_free_at_once_when_its_owner_is_killed_although_a_forked_child_lives(tmp_path: Path) -> None:
    path, (told, tells) = tmp_path / "a.lock", os.pipe()
    owner = os.fork()
    if owner == 0:
        lock = FileLock(path, "a")
        lock.try_acquire()
        if os.fork() == 0:
            os.write(tells, str(os.getpid()).encode())
        signal.pause()
        os._exit(1)
    child, other = int(os.read(told, 20)), FileLock(path, "a")
    try:
        assert not other.try_acquire()
        os.kill(owner, signal.SIGKILL)
        os.waitpid(owner, 0)
        os.kill(child, 0)  # it lives
        assert other.try_acquire()
        other.release()
    finally:
        os.kill(child, signal.SIGKILL)
        os.close(told)
        os.close(tells)


def test_a_forked_child_does_not_keep_a_lock_alive(tmp_path: Path) -> None:
    lock, other = FileLock(tmp_path / "a.lock", "a"), FileLock(tmp_path / "a.lock", "a")
    assert lock.try_acquire()
    child, pipe = forked_child()
    try:
        assert not other.try_acquire()  # the parent still holds it, although the child closed its copy
        lock.release()
        assert other.try_acquire()
        other.release()
    finally:
        os.close(pipe)
        os.waitpid(child, 0)
