"""MPS daemons of a sweep, by a stand-in for NVIDIA's tool: ours end with the sweep, those of others are left alone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from jepa_lab.sweeps.sharing.mps_keeper import PIPES
from jepa_lab.sweeps.sharing.slots import Slots
from tests.unit.sweeps.sharing.fake_mps import FakeMps, daemon_pid, is_alive

_TURNS = "trials that share a GPU take turns on it; with NVIDIA MPS they would run on it at once"


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeMps:
    return FakeMps(tmp_path, monkeypatch)


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it has not come about in 30 s")


def pipes_of(slots: Slots, slot: int = 0) -> Path:
    return Path(slots.environment(slot)[PIPES])


def test_trials_that_share_a_gpu_are_clients_of_a_daemon_that_ends_with_the_sweep(
    fake: FakeMps, tmp_path: Path
) -> None:
    slots = Slots(4, ["3"], tmp_path / "sweep")
    assert slots.sentences == ["trials that share a GPU run on it at once, by NVIDIA MPS"]
    assert fake.said("start") == ["start 3"]
    assert slots.environment(1)["CUDA_VISIBLE_DEVICES"] == "0", "the daemon shows its clients one GPU"
    pipes = pipes_of(slots)
    assert len(str(pipes)) < 60, "the path of a socket is at most 107 bytes long"
    assert pipes.stat().st_mode & 0o777 == 0o700
    daemon = daemon_pid(pipes)
    assert is_alive(daemon)
    slots.close()
    assert not is_alive(daemon)
    assert not pipes.exists()
    assert fake.said("quit") == ["quit"]


def test_each_shared_gpu_has_a_daemon_of_its_own(fake: FakeMps, tmp_path: Path) -> None:
    slots = Slots(5, ["GPU-8f2c", "MIG-GPU-11/1/0", "7"], tmp_path / "sweep")
    assert fake.said("start") == ["start GPU-8f2c", "start MIG-GPU-11/1/0"], "a slot has the last GPU for itself"
    environments = [slots.environment(number) for number in range(5)]
    names = [environment["CUDA_VISIBLE_DEVICES"] for environment in environments]
    assert names == ["GPU-8f2c", "MIG-GPU-11/1/0", "7", "GPU-8f2c", "MIG-GPU-11/1/0"]
    assert PIPES not in environments[2]
    assert pipes_of(slots, 0) == pipes_of(slots, 3) != pipes_of(slots, 1)
    slots.close()
    assert len(fake.said("quit")) == 2


def test_a_daemon_of_others_is_used_and_left_alone(fake: FakeMps, tmp_path: Path) -> None:
    fake.pipes.mkdir()
    subprocess.run([fake.tool, "-d"], env=os.environ | {PIPES: str(fake.pipes)}, check=True)
    daemon = daemon_pid(fake.pipes)
    slots = Slots(2, ["1"], tmp_path / "sweep")
    assert slots.sentences == [f"trials that share a GPU run on it at once, by the MPS daemon of {fake.pipes}"]
    assert slots.uses_mps
    assert slots.environment(0)["CUDA_VISIBLE_DEVICES"] == "1"
    assert PIPES not in slots.environment(0)
    slots.close()
    assert is_alive(daemon)
    assert fake.said("start", "quit") == [f"start {os.environ.get('CUDA_VISIBLE_DEVICES', '')}"]
    os.kill(daemon, signal.SIGKILL)


def test_a_directory_without_a_daemon_is_the_users_way_to_do_without(
    fake: FakeMps, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PIPES, str(tmp_path / "empty"))
    slots = Slots(2, ["0"], tmp_path / "sweep")
    assert slots.sentences == [f"{_TURNS}: {PIPES} is set, and no daemon is there; unset it to have one here"]
    assert fake.said("start", "quit") == []


@pytest.mark.parametrize(("number", "gpus"), [(1, ["0"]), (2, ["0", "1"]), (4, [])])
def test_nothing_is_started_where_no_gpu_is_shared(fake: FakeMps, tmp_path: Path, number: int, gpus: list[str]) -> None:
    slots = Slots(number, gpus, tmp_path / "sweep")
    assert (slots.sentences, fake.said("start"), slots.inherited(0)) == ([], [], [])


def test_without_the_tool_slots_take_turns_and_it_is_said_why(fake: FakeMps, tmp_path: Path) -> None:
    fake.tool.chmod(0o644)
    slots = Slots(2, ["0"], tmp_path / "sweep")
    assert slots.sentences == [f"{_TURNS} (nvidia-cuda-mps-control is not in PATH)"]
    assert slots.environment(1)["CUDA_VISIBLE_DEVICES"] == "0"


@pytest.mark.parametrize(
    ("sabotage", "reason"),
    [
        ("echo 'Insufficient privileges'; exit 3", "ended with code 3 and no daemon answers: Insufficient privileges"),
        ("exit 0", "ended with code 0 and no daemon answers: it said nothing"),
    ],
)
def test_a_daemon_that_does_not_start_costs_no_trial(fake: FakeMps, tmp_path: Path, sabotage: str, reason: str) -> None:
    fake.write(sabotage)
    slots = Slots(2, ["0"], tmp_path / "sweep")
    (sentence,) = slots.sentences
    assert sentence.startswith(_TURNS)
    assert reason in sentence
    assert PIPES not in slots.environment(0)


def test_more_trials_than_a_daemon_serves_take_turns(fake: FakeMps, tmp_path: Path) -> None:
    slots = Slots(49, ["0"], tmp_path / "sweep")
    assert slots.sentences == [f"{_TURNS} (which serves at most 48 on a GPU, and 49 share GPU 0)"]
    assert fake.said("start") == []


def test_a_program_that_cannot_be_run_is_no_daemon(fake: FakeMps, tmp_path: Path) -> None:
    fake.tool.write_bytes(b"\x7fELF of another machine")
    slots = Slots(2, ["0"], tmp_path / "sweep")
    assert "Exec format error" in slots.sentences[0]


def test_of_two_daemons_none_stays_where_the_second_does_not_start(fake: FakeMps, tmp_path: Path) -> None:
    fake.write('[ "$CUDA_VISIBLE_DEVICES" = 0 ] || exit 1')
    slots = Slots(4, ["0", "1"], tmp_path / "sweep")
    assert slots.sentences[0].startswith(_TURNS)
    assert fake.said("start") == ["start 0", "start 1"]
    assert not slots.uses_mps
    assert slots.environment(0)["CUDA_VISIBLE_DEVICES"] == "0"
    assert PIPES not in slots.environment(0)
    assert not is_alive(int(fake.said("serving")[0].split()[1]))


@pytest.mark.parametrize("victim", ["daemon", "keeper"])
def test_a_sweep_ends_in_order_whoever_of_both_was_killed(fake: FakeMps, tmp_path: Path, victim: str) -> None:
    slots = Slots(2, ["0"], tmp_path / "sweep")
    pipes, (daemon,) = pipes_of(slots), slots._daemons.values()
    number = daemon_pid(pipes)
    os.kill(number if victim == "daemon" else daemon.keeper.pid, signal.SIGKILL)
    slots.close()
    assert not pipes.exists()
    assert not is_alive(number)


def test_a_daemon_that_takes_no_commands_any_more_is_killed(fake: FakeMps, tmp_path: Path) -> None:
    slots = Slots(2, ["0"], tmp_path / "sweep")
    pipes = pipes_of(slots)
    number = daemon_pid(pipes)
    fake.tool.write_text("#!/bin/sh\nexit 1\n")
    slots.close()
    wait_for(lambda: not is_alive(number))
    assert not pipes.exists()


_SWEEP = """
import subprocess, sys, time
from pathlib import Path
from jepa_lab.sweeps.sharing import mps, slots
mps._DEFAULT_PIPES = Path("/nowhere")
slots.free_memory = lambda gpus: (40 * 2**30,) * len(gpus)
found = slots.Slots(2, ["0"], Path(sys.argv[1]))
worker = subprocess.Popen(["sleep", "600"], pass_fds=found.inherited(0))
keeper = found._daemons[0].keeper.pid
print(worker.pid, keeper, found.environment(0)["CUDA_MPS_PIPE_DIRECTORY"], flush=True)
time.sleep(600)
"""


def killed_sweep(folder: Path) -> tuple[int, int, Path]:
    """A sweep that was killed with a worker at work: the worker, the keeper, the pipe directory."""
    process = subprocess.Popen([sys.executable, "-c", _SWEEP, str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    worker, keeper, pipes = process.stdout.readline().split()
    process.kill()
    process.wait()
    process.stdout.close()
    return int(worker), int(keeper), Path(pipes)


def test_the_daemon_of_a_killed_sweep_ends_with_the_last_of_its_workers(fake: FakeMps, tmp_path: Path) -> None:
    worker, _, pipes = killed_sweep(tmp_path / "sweep")
    daemon = daemon_pid(pipes)
    time.sleep(0.3)
    assert is_alive(daemon), "the worker saves its state on the GPU"
    os.kill(worker, signal.SIGKILL)
    wait_for(lambda: not is_alive(daemon) and not pipes.exists())


def test_the_next_sweep_waits_for_the_workers_of_the_killed_one_and_has_a_daemon_of_its_own(
    fake: FakeMps, tmp_path: Path
) -> None:
    worker, _, pipes = killed_sweep(tmp_path / "sweep")
    first = daemon_pid(pipes)
    threading.Timer(0.5, os.kill, (worker, signal.SIGKILL)).start()
    slots = Slots(2, ["0"], tmp_path / "sweep")
    assert daemon_pid(pipes_of(slots)) != first
    assert not is_alive(first)
    slots.close()


def test_a_daemon_that_lost_sweep_and_keeper_is_found_and_ended_by_the_next_sweep(
    fake: FakeMps, tmp_path: Path
) -> None:
    worker, keeper, pipes = killed_sweep(tmp_path / "sweep")
    os.kill(keeper, signal.SIGKILL)
    os.kill(worker, signal.SIGKILL)
    wait_for(lambda: not is_alive(keeper))
    daemon = daemon_pid(pipes)
    assert is_alive(daemon)
    slots = Slots(2, ["0"], tmp_path / "sweep")
    assert daemon_pid(pipes_of(slots)) == daemon
    assert len(fake.said("start")) == 1
    slots.close()
    assert not is_alive(daemon)


def test_signals_for_the_whole_job_leave_the_daemon_to_those_who_save_their_state(
    fake: FakeMps, tmp_path: Path
) -> None:
    slots = Slots(2, ["0"], tmp_path / "sweep")
    (daemon,) = slots._daemons.values()
    number = daemon_pid(pipes_of(slots))
    for process in (daemon.keeper.pid, number):
        os.kill(process, signal.SIGTERM)
    time.sleep(0.2)
    assert is_alive(daemon.keeper.pid)
    assert is_alive(number)
    slots.close()
    assert not is_alive(number)


def test_a_folder_that_others_made_in_our_place_is_not_used(fake: FakeMps, tmp_path: Path) -> None:
    slots = Slots(2, ["0"], tmp_path / "sweep")
    pipes = pipes_of(slots)
    slots.close()
    pipes.mkdir(mode=0o777)
    pipes.chmod(0o777)
    again = Slots(2, ["0"], tmp_path / "sweep")
    assert "must be a folder that is ours alone" in again.sentences[0]
    assert pipes.is_dir()
    pipes.rmdir()
