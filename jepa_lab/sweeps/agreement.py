"""What the parent of a sweep and a worker on another machine must agree on: the folder, the plan, the code, the locks.

A worker that finds another plan or other code refuses its task, and says what differs. Whether locks work between the
two machines is for the parent to judge: it knows whether it held the sweep's lock when the worker looked.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

from jepa_lab import __version__
from jepa_lab.errors import ConfigError
from jepa_lab.sweeps.folder import SweepFolder
from jepa_lab.sweeps.tasks import Expected
from jepa_lab.tracking.atomic import explained_writes, write_text_atomically
from jepa_lab.tracking.environment import source_digest
from jepa_lab.tracking.locks import FileLock
from jepa_lab.tracking.records import read_record, write_record

_AGREED, _AGREED_VERSION, _WHAT = "agreed.json", 1, "agreement of shares"
_LOCK_SECONDS = 60.0


@dataclass(frozen=True)
class Hello:
    """What a worker saw before it began, written beside its reply.

    Attributes:
        host: of the worker. pid: there.
        sees_lock: whether the sweep's lock looked held from there.
    """

    host: str
    pid: int
    sees_lock: bool

    def write(self, reply: Path) -> None:
        """Beside the reply that will follow."""
        write_text_atomically(hello_beside(reply), json.dumps(asdict(self)) + "\n")

    @classmethod
    def read(cls, reply: Path) -> Hello | None:
        """Of the worker that writes this reply; None before it has begun."""
        try:
            return cls(**json.loads(hello_beside(reply).read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None


def hello_beside(reply: Path) -> Path:
    """The file of a worker's hello."""
    return reply.with_name(f"{reply.name}.hello")


def say_hello(expected: Expected) -> Hello:
    """What this worker sees."""
    return Hello(socket.gethostname(), os.getpid(), SweepFolder(Path(expected.folder)).lock().is_held())


def expected_here(folder: SweepFolder) -> Expected:
    """What the parent, on this machine, sees."""
    path = folder.path.absolute()  # a link may lead elsewhere on another machine
    return Expected(socket.gethostname(), str(path), _digest(folder.plan), __version__, source_digest())


def refusal(expected: Expected) -> str | None:
    """Why this machine must not do a task, in words; None where it sees what the parent saw."""
    host = socket.gethostname()
    folder = SweepFolder(Path(expected.folder))
    if not folder.plan.is_file():
        return (
            f"{host} does not see the sweep's folder {folder.path}, which is on {expected.host}; put the sweep on a "
            "file system that all machines share, under the same path (--sweeps)"
        )
    if _digest(folder.plan) != expected.plan:
        return (
            f"{folder.plan} on {host} is not the one on {expected.host}: they are two folders of the same path; put "
            "the sweep on a file system that all machines share (--sweeps)"
        )
    if (__version__, source_digest()) != (expected.version, expected.source):
        return (
            f"jepa-lab on {host} is {_version(__version__, source_digest())}, and the sweep was started with "
            f"{_version(expected.version, expected.source)} on {expected.host}; install the same version everywhere, "
            "best on a file system that all machines share, and do not change it while a sweep runs"
        )
    return None


def no_working_folder(folder: Path) -> str:
    """That a worker does not see the folder that the sweep was started in, in words."""
    return (
        f"{socket.gethostname()} does not see the folder {folder}, which the sweep was started in and which relative "
        "paths of its pipelines start from; start the sweep in a folder that all machines share"
    )


def broken_locks(hello: Hello, folder: SweepFolder) -> str:
    """That a worker saw no lock where the parent holds one, in words."""
    return (
        f"{hello.host} does not see that {folder.lock().path} is locked on {socket.gethostname()}: file locks (flock) "
        "do not work between these machines, so two workers could train one trial; mount the file system with locks "
        "(NFS: without nolock and local_lock; Lustre: with flock), or put the sweep on another one (--sweeps)"
    )


def agree(folder: SweepFolder) -> None:
    """The first one that trains a share of a sweep by hand says which code it runs; the others must run the same.

    Raises:
        ConfigError: they do not.
    """
    agreed = folder.shares / _AGREED
    with explained_writes(agreed):
        folder.shares.mkdir(exist_ok=True)
    with FileLock(folder.shares / "agreed.lock", "the agreement of shares") as lock:
        lock.acquire(_LOCK_SECONDS)
        if not agreed.exists():
            write_record(agreed, _WHAT, _AGREED_VERSION, asdict(expected_here(folder)))
    recorded = read_record(agreed, _WHAT, _AGREED_VERSION)
    expected = Expected(**{key: recorded[key] for key in Expected.__dataclass_fields__})
    difference = refusal(expected)
    if difference is not None:
        raise ConfigError(f"{difference}. To continue with another version on purpose, remove {agreed}")


def _version(version: str, source: str) -> str:
    return f"{version} (source {source[:8]})"


def _digest(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
