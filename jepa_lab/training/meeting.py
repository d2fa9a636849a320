"""The first meeting of the processes of a run: who has come, which start they belong to, and how long they wait.

torchrun gives its processes one store of keys and values, and keeps it when it starts them again: what an earlier
start wrote is still there, and torchrun's own count of restarts may differ from machine to machine. So the processes
first agree on a start of their own, and no key of an earlier one is read.
"""

from __future__ import annotations

import hashlib
import math
import socket
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import torch.distributed as dist

from jepa_lab.errors import ConfigError, RunStopped
from jepa_lab.training.connections import noticing_lost_machines, set_timeout
from jepa_lab.training.team import Place

VARIABLE = "JEPA_LAB_MEETING_MINUTES"
"""Environment variable: how many minutes the processes of a run wait for each other."""

_DEFAULT_MINUTES = 10.0
"""torchrun has brought the machines together already; what is left is to import Python modules, at worst from a cold
network disk."""

_MOST_MINUTES = 7 * 24 * 60

CONNECTED = timedelta(minutes=2)
"""All have come, and only have to open connections."""

_LOOK_EVERY_SECONDS = 0.1
_SILENT_SECONDS = 15.0
"""Who waits longer says for whom."""

_LAST_PORT = 65535

_TOKEN, _LIST = "token/{}", "list"
_CONFIRMED, _BEGINS = "{}/confirmed/{}", "{}/begins"
"""Keys of the store, by rank, and by start and rank."""


class Wait:
    """A wait with a limit, which says once what it waits for.

    Args:
        minutes: the limit, from now on.
    """

    def __init__(self, minutes: float) -> None:
        self.minutes = minutes
        self._began, self._silent = time.monotonic(), True

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Wait:
        """As long as the environment says.

        Raises:
            ConfigError: it says no number of minutes.
        """
        text = environment.get(VARIABLE, str(_DEFAULT_MINUTES))
        try:
            minutes = float(text)
        except ValueError:
            minutes = math.nan
        if not 0 < minutes <= _MOST_MINUTES:
            raise ConfigError(
                f"the environment variable {VARIABLE} must be a number of minutes, above 0 and at most "
                f"{_MOST_MINUTES} (a week), got {text!r}; change it, or unset it for {_DEFAULT_MINUTES:g} minutes"
            )
        return cls(minutes)

    def look_again(self, waiting_for: Callable[[], str]) -> bool:
        """Whether there is time left to look again, after a moment.

        Args:
            waiting_for: what is missing, in words.
        """
        passed = time.monotonic() - self._began
        if passed >= 60 * self.minutes:
            return False
        if self._silent and passed >= _SILENT_SECONDS:
            self._silent = False
            print(f"waiting for {waiting_for()}, at most {self} in all ({VARIABLE})", file=sys.stderr, flush=True)
        time.sleep(_LOOK_EVERY_SECONDS)
        return True

    def __str__(self) -> str:
        return f"{self.minutes:g} minute{'' if self.minutes == 1 else 's'}"


@dataclass(frozen=True)
class Address:
    """Where the store of a run listens.

    Attributes:
        is_here: whether this process opens it; otherwise torchrun, or the leader, has.
    """

    host: str
    port: int
    is_here: bool

    @classmethod
    def of(cls, environment: Mapping[str, str], place: Place) -> Address:
        """What torchrun says.

        Raises:
            ConfigError: nobody has said it.
        """
        host, port = environment.get("MASTER_ADDR", ""), environment.get("MASTER_PORT", "")
        if not host or not port.isdecimal() or int(port) > _LAST_PORT:
            raise ConfigError(
                f"the environment says RANK={place.rank} WORLD_SIZE={place.world_size}, but MASTER_ADDR={host!r} "
                f"MASTER_PORT={port!r}, which must be a host and a port; start the run by torchrun, which sets them"
            )
        return cls(host, int(port), place.rank == 0 and environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True")

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def connect_processes(place: Place, address: Address, wait: Wait, later: timedelta) -> None:
    """Make the default process group, of gloo, as soon as all processes are there.

    Args:
        wait: how long to wait for the others.
        later: how long the collectives of the group may take.
    Raises:
        RunStopped: a process did not come, or they cannot reach each other.
    """
    with noticing_lost_machines():
        try:
            store = open_store(address, wait)
            start = agree_on_start(store, place, wait)
        except dist.DistError as error:
            raise RunStopped(
                f"the store of this run at {address}, over which its processes meet, failed ({_first_line(error)}); "
                "probably torchrun was ended there. Start the same torchrun command again on every machine"
            ) from error
        try:
            dist.init_process_group(
                "gloo",
                store=dist.PrefixStore(start, store),
                rank=place.rank,
                world_size=place.world_size,
                timeout=CONNECTED,
            )
        except RuntimeError as error:
            raise RunStopped(
                f"the {place.world_size} processes of this run have found each other, but could not connect "
                f"({_first_line(error)}): one of them died just then, or a machine offers an address that the others "
                "cannot reach. Set GLOO_SOCKET_IFNAME to the network interface that leads to them (`ip -brief address` "
                "lists them), such as eth0, and start the same torchrun command again on every machine"
            ) from error
    set_timeout(later)


def open_store(address: Address, wait: Wait) -> dist.Store:
    """The store that all processes share.

    Raises:
        RunStopped: nothing answers there, or this process cannot open it. DistError: it has failed.
    """
    if not address.is_here:
        wait_until_it_listens(address, wait)
    try:
        return dist.TCPStore(
            address.host, address.port, None, is_master=address.is_here, timeout=CONNECTED, wait_for_workers=False
        )
    except dist.DistNetworkError as error:
        if not address.is_here:
            raise
        raise RunStopped(
            f"this process, the first of its run, cannot listen at port {address.port}, where the others would meet it "
            f"({_first_line(error)}); start torchrun on every machine with another port"
        ) from error


def wait_until_it_listens(address: Address, wait: Wait) -> None:
    """In Python, where signals are heard meanwhile: PyTorch's own wait hears none."""
    while True:
        try:
            socket.create_connection((address.host, address.port), timeout=5).close()
            return
        except OSError as error:
            if not wait.look_again(lambda: f"process 0 of this run, at {address}"):
                raise RunStopped(
                    f"nothing answers at {address}, where the processes of this run meet ({error.strerror or error}), "
                    f"after {wait} ({VARIABLE}); check that torchrun runs on that machine, that its name and port are "
                    "right and open to this machine, and start the same torchrun command again on every machine"
                ) from error


def agree_on_start(store: dist.Store, place: Place, wait: Wait) -> str:
    """Wait until all processes have come.

    Each leaves a new token. The leader publishes the list of them, each process confirms a list that has its token,
    and the leader declares a list with all confirmations the start. A token that an earlier start left is never
    confirmed, and is replaced when that process comes.

    Returns:
        A name that no other start has.
    """
    own, token = _TOKEN.format(place.rank), uuid.uuid4().hex
    store.set(own, token)
    while True:
        if store.get(own).decode() != token:
            raise RunStopped(
                f"another process came as number {place.rank} of the {place.world_size} of this run, after this one; "
                "the run was started twice with the same address and port, so leave one of them"
            )
        start = _declare_start(store, place.world_size) if place.rank == 0 else _confirm_start(store, place.rank, token)
        if start is not None:
            return start
        if not wait.look_again(lambda: f"process {_numbers(_missing(store, place, token))} of {place.world_size}"):
            raise RunStopped(_who_is_missing(_missing(store, place, token), place.world_size, wait))


def _declare_start(store: dist.Store, size: int) -> str | None:
    """What the leader does at each look; the start, if all have confirmed it."""
    tokens = [_TOKEN.format(rank) for rank in range(size)]
    if not store.check(tokens):
        return None
    listed = b" ".join(store.multi_get(tokens)).decode()
    start = _name_of(listed)
    store.set(_LIST, listed)
    if not store.check([_CONFIRMED.format(start, rank) for rank in range(1, size)]):
        return None
    store.set(_BEGINS.format(start), "")
    return start


def _confirm_start(store: dist.Store, rank: int, token: str) -> str | None:
    """What a follower does at each look; the start, if the leader has declared it."""
    listed = _listed(store)
    if token not in listed.split():
        return None
    start = _name_of(listed)
    store.set(_CONFIRMED.format(start, rank), "")
    return start if store.check([_BEGINS.format(start)]) else None


def _listed(store: dist.Store) -> str:
    return store.get(_LIST).decode() if store.check([_LIST]) else ""


def _name_of(listed: str) -> str:
    return hashlib.sha256(listed.encode()).hexdigest()[:16]


def _missing(store: dist.Store, place: Place, token: str) -> list[int]:
    """The ranks that have not come to this start."""
    listed, ranks = _listed(store), range(place.world_size)
    missing = [rank for rank in ranks if not store.check([_TOKEN.format(rank)])]
    if not missing and token in listed.split():
        start = _name_of(listed)
        missing = [rank for rank in ranks[1:] if not store.check([_CONFIRMED.format(start, rank)])]
    return missing or [0]  # all are there, but nothing comes from the leader


def _who_is_missing(missing: Sequence[int], size: int, wait: Wait) -> str:
    return (
        f"after {wait} ({VARIABLE}) only {size - len(missing)} of the {size} processes of this run came; missing: "
        f"{_numbers(missing)} (counted from 0). Whoever is missing has died, which its own output explains, or was "
        "never started. Start the same torchrun command again on every machine, with --resume auto to resume what was "
        "trained"
    )


def _numbers(ranks: Sequence[int]) -> str:
    return ", ".join(map(str, ranks))


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
