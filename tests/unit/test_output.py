"""Standard output that fails never ends a program, and what was lost is known afterwards."""

from __future__ import annotations

import contextlib
import errno
import io
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest
from rich.console import Console

from jepa_lab import output
from jepa_lab.output import lost_output, unfailing_output


@contextlib.contextmanager
def streams(stdout: IO[str], stderr: IO[str], patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Unfailing output in place of two given files."""
    with patch.context() as inner:
        inner.setattr(sys, "stdout", stdout)
        inner.setattr(sys, "stderr", stderr)
        with unfailing_output():
            yield


def broken_pipe() -> IO[str]:
    reader, writer = os.pipe()
    os.close(reader)
    return open(writer, "w")


def closed_terminal() -> IO[str]:
    master, slave = pty.openpty()
    os.close(master)
    return open(slave, "w")


def full_disk() -> IO[str]:
    return open("/dev/full", "w")


def closed_descriptor() -> IO[str]:
    descriptor = os.open(os.devnull, os.O_WRONLY)
    file = os.fdopen(descriptor, "w", closefd=False)
    os.close(descriptor)
    return file


@pytest.mark.parametrize(
    ("broken", "number", "told"),
    [
        (broken_pipe, errno.EPIPE, False),
        (closed_terminal, errno.EIO, False),
        (closed_descriptor, errno.EBADF, False),
        (full_disk, errno.ENOSPC, True),
    ],
)
def test_whatever_is_printed_to_a_broken_output_is_dropped_and_remembered(
    broken: Callable[[], IO[str]], number: int, told: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open(tmp_path / "errors", "w+") as errors, contextlib.suppress(OSError), broken() as out:
        with streams(out, errors, monkeypatch):
            assert lost_output() is None
            for _ in range(2):
                print("a line")
                Console().print("[bold]a table")
                sys.stdout.flush()
            lost = lost_output()
        assert lost is not None
        assert lost.errno == number
        errors.seek(0)
        warning = "warning: standard output cannot be written (No space left on device); continuing without it\n"
        assert errors.read() == (warning if told else "")


def test_a_broken_standard_error_is_as_harmless(monkeypatch: pytest.MonkeyPatch) -> None:
    with full_disk() as out, broken_pipe() as errors, streams(out, errors, monkeypatch):
        print("lost")
        print("lost, too", file=sys.stderr)
        sys.stderr.flush()
        lost = lost_output()
    assert lost is not None
    assert lost.errno == errno.ENOSPC, "the first failure is remembered"


def test_nothing_is_lost_on_the_way_to_a_non_blocking_pipe_that_is_read_slowly(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    text, received = "x" * 1_000_000, io.BytesIO()

    def read() -> None:
        while piece := os.read(reader, 10_000):
            received.write(piece)

    thread = threading.Thread(target=read)
    with open(writer, "w") as out, streams(out, sys.stderr, monkeypatch):
        thread.start()
        print(text)
        assert lost_output() is None
    thread.join()
    os.close(reader)
    assert received.getvalue().decode() == text + "\n"


def test_a_non_blocking_output_that_takes_nothing_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    waits = []
    select = output.select.select

    def counted(*arguments: object) -> object:
        waits.append(1)
        return select(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(output, "_PATIENCE_SECONDS", 0.05)
    monkeypatch.setattr("jepa_lab.output.select.select", counted)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    with open(writer, "w") as out, streams(out, sys.stderr, monkeypatch):
        print("x" * 1_000_000)
        waited = len(waits)
        assert waited >= 1
        lost = lost_output()
        assert lost is not None
        assert lost.errno == errno.EAGAIN
        print("more")
        assert len(waits) == waited
        while len(os.read(reader, 1_000_000)) == 1_000_000:
            pass
        print("it is read again")
        assert os.read(reader, 1_000_000).endswith(b"it is read again\n")
    os.close(reader)


def test_a_stream_in_memory_stays_in_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = io.StringIO()
    with streams(memory, memory, monkeypatch):
        assert sys.stdout is memory


def test_blocks_may_be_nested_and_give_the_streams_back(monkeypatch: pytest.MonkeyPatch) -> None:
    with full_disk() as out:
        with streams(out, sys.stderr, monkeypatch):
            outer = sys.stdout
            with unfailing_output():
                assert sys.stdout is outer
                print("lost")
            assert lost_output() is not None
        out.close()
    assert lost_output() is None


@pytest.mark.parametrize("closed", ["<&- >&-", "<&- >&- 2>&-", "2>&-"])
def test_a_file_that_is_opened_never_takes_the_number_of_a_closed_stream(closed: str, tmp_path: Path) -> None:
    code = (
        "from jepa_lab.output import unfailing_output\n"
        "with unfailing_output(), open('out.txt', 'w') as file:\n"
        "    print('to nobody')\n"
        "    assert file.fileno() > 2"
    )
    command = ["bash", "-c", f'"$@" {closed}', "bash", sys.executable, "-c", code]
    done = subprocess.run(command, check=False, cwd=tmp_path)
    assert done.returncode == 0
    assert (tmp_path / "out.txt").read_text() == ""
