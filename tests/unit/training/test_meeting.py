"""The processes of a run agree on one start, or say who is missing; what an earlier start left behind is not read."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
import torch.distributed as dist

from jepa_lab.errors import ConfigError, RunStopped
from jepa_lab.training import meeting
from jepa_lab.training.connections import noticing_lost_machines
from jepa_lab.training.meeting import Address, Wait, agree_on_start, wait_until_it_listens
from jepa_lab.training.team import Place

LONG, SHORT = 60.0, 0.3


def agree(store: dist.Store, rank: int, size: int, seconds: float) -> str:
    return agree_on_start(store, Place(rank, size, 0, 1), Wait(seconds / 60))


def agree_all(store: dist.Store, ranks: Sequence[int], size: int, seconds: float = LONG) -> list[str]:
    """What each of these processes calls the start, or the error of one that it ended with."""

    def one(rank: int) -> str:
        try:
            return agree(store, rank, size, seconds)
        except RunStopped as error:
            return str(error)

    with ThreadPoolExecutor(len(ranks)) as threads:
        return list(threads.map(one, ranks))


def test_all_processes_agree_on_one_start_and_every_start_is_another() -> None:
    store = dist.HashStore()
    first, second = agree_all(store, range(3), 3), agree_all(store, range(3), 3)
    assert len(set(first)) == len(set(second)) == 1
    assert first != second


def test_a_process_that_died_in_an_earlier_start_is_not_taken_for_one_of_this() -> None:
    store = dist.HashStore()
    agree_all(store, range(3), 3)
    said = agree_all(store, [0, 1], 3, SHORT)
    assert all("missing: 2 (counted from 0)" in each for each in said), said
    said = agree_all(store, [1, 2], 3, SHORT)
    assert all("missing: 0 (counted from 0)" in each for each in said), said
    assert len(set(agree_all(store, range(3), 3))) == 1


def test_all_that_are_missing_are_named_with_what_to_do() -> None:
    store = dist.HashStore()
    store.set("token/2", "of this start")
    with pytest.raises(
        RunStopped, match=r"after 0.005 minutes .*only 2 of the 4.*missing: 1, 3 .*--resume auto"
    ) as stopped:
        agree(store, 0, 4, SHORT)
    assert stopped.value.exit_code == 3


def test_the_older_of_two_processes_with_one_number_ends() -> None:
    store = dist.HashStore()
    with ThreadPoolExecutor(1) as thread:
        older = thread.submit(agree, store, 1, 2, LONG)
        while not store.check(["token/1"]):
            time.sleep(0.01)
        assert len(set(agree_all(store, [0, 1], 2))) == 1
        with pytest.raises(RunStopped, match="another process came as number 1 of the 2"):
            older.result()


def test_an_address_where_nothing_listens_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        rule = rf"nothing answers at 127.0.0.1:{port}.*\(Connection refused\).* after 0.005 minutes"
        with pytest.raises(RunStopped, match=rule):
            wait_until_it_listens(Address("127.0.0.1", port, is_here=False), Wait(SHORT / 60))


def test_a_port_that_another_program_uses_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("", 0))
        taken.listen()
        address = Address("127.0.0.1", taken.getsockname()[1], is_here=True)
        with pytest.raises(RunStopped, match=rf"cannot listen at port {address.port}.*another port"):
            meeting.open_store(address, Wait(SHORT / 60))


ENVIRONMENT = {"MASTER_ADDR": "first", "MASTER_PORT": "29500"}


def test_the_leader_opens_the_store_unless_torchrun_has() -> None:
    leader, other = Place(0, 2, 0, 1), Place(1, 2, 0, 1)
    by_torchrun = {**ENVIRONMENT, "TORCHELASTIC_USE_AGENT_STORE": "True"}
    assert Address.of(ENVIRONMENT, leader) == Address("first", 29500, is_here=True)
    assert Address.of(ENVIRONMENT, other) == Address.of(by_torchrun, leader) == Address("first", 29500, is_here=False)


@pytest.mark.parametrize(("name", "value"), [("MASTER_ADDR", ""), ("MASTER_PORT", "http"), ("MASTER_PORT", "65536")])
def test_an_environment_without_an_address_is_refused(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"RANK=1 .*{name}={re.escape(repr(value))}.*start the run by torchrun"):
        Address.of({**ENVIRONMENT, name: value}, Place(1, 2, 0, 1))


def test_the_limit_comes_from_the_environment_and_is_ten_minutes_otherwise() -> None:
    assert (str(Wait.of({})), str(Wait.of({meeting.VARIABLE: "1"}))) == ("10 minutes", "1 minute")


@pytest.mark.parametrize("text", ["", "ten", "0", "-1", "nan", "inf", "10081"])
def test_a_limit_that_is_no_number_of_minutes_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=rf"{meeting.VARIABLE} must be a number of minutes, .*got {text!r}"):
        Wait.of({meeting.VARIABLE: text})


def test_a_long_wait_says_once_for_whom(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(meeting, "_SILENT_SECONDS", 0.1)
    with pytest.raises(RunStopped):
        agree(dist.HashStore(), 0, 3, SHORT)
    said = capsys.readouterr().err.splitlines()
    assert said == [f"waiting for process 1, 2 of 3, at most 0.005 minutes in all ({meeting.VARIABLE})"]


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_connections_opened_within_notice_a_lost_machine_and_others_are_left_alone(listener: socket.socket) -> None:
    before = socket.create_connection(listener.getsockname())
    with noticing_lost_machines():
        within = socket.create_connection(listener.getsockname())
        shut = socket.create_connection(listener.getsockname())
        shut.close()
    after = socket.create_connection(listener.getsockname())
    with before, within, after:
        asked = [each.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) for each in (before, within, after)]
        assert asked == [0, 1, 0]
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            limit = within.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
            assert timedelta(milliseconds=limit) == timedelta(minutes=5)
