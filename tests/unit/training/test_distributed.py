"""Who a process is among those that torchrun has started, and what it refuses there."""

import pytest
import torch

from jepa_lab.errors import ConfigError, DeviceError
from jepa_lab.training.devices import Compute
from jepa_lab.training.distributed import Processes, first_difference
from jepa_lab.training.team import Alone, Place, refuse_torchrun

THIRD_OF_FOUR = {"RANK": "2", "WORLD_SIZE": "4", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2"}


def compute_on(device: str) -> Compute:
    return Compute(torch.device(device), "fp32", compile=False)


def test_without_torchrun_a_process_is_alone_and_has_the_whole_batch() -> None:
    assert Place.of({"PATH": "/bin"}) == Alone().place
    assert Alone().leads
    assert Alone().rows(12) == slice(0, 12)


def test_the_rows_of_all_processes_are_the_batch() -> None:
    rows = [list(range(12))[Processes(Place(rank, 4, 0, 1)).rows(12)] for rank in range(4)]
    assert [row for part in rows for row in part] == list(range(12))
    assert {len(part) for part in rows} == {3}


def test_torchrun_says_which_process_this_is() -> None:
    assert Place.of(THIRD_OF_FOUR) == Place(rank=2, world_size=4, local_rank=0, local_size=2)


def test_on_each_machine_one_process_speaks() -> None:
    on_one_machine = [Place(rank, 4, rank, 4) for rank in range(4)]
    assert not any(place.on_several_machines or place.is_first_of_another_machine for place in on_one_machine)
    on_two = [Place(rank, 4, rank % 2, 2) for rank in range(4)]
    assert all(place.on_several_machines for place in on_two)
    assert [place.rank for place in on_two if place.is_first_of_another_machine] == [2]


def test_processes_that_know_the_same_do_not_differ() -> None:
    assert first_difference([("a", {"seed": "0"}), ("b", {"seed": "0"})]) is None


def test_three_differences_are_named_those_of_values_first_and_the_others_counted() -> None:
    first = {"masker.ratio": "1", "seed": "0", "masker.name": "random", "masker.low": "2"}
    told = first_difference([("a", first), ("b", first), ("c", {"seed": "1", "masker.name": "block"})])
    assert told == (
        "c differs from a: seed 1 instead of 0, masker.name block instead of random, "
        "masker.ratio none instead of 1, and 1 more"
    )


@pytest.mark.parametrize(("name", "value"), [("RANK", "4"), ("RANK", "one"), ("WORLD_SIZE", "0"), ("LOCAL_RANK", "-1")])
def test_an_environment_that_torchrun_would_not_make_is_refused(name: str, value: str) -> None:
    with pytest.raises(ConfigError, match=f"{name}={value}.*unset RANK"):
        Place.of({**THIRD_OF_FOUR, name: value})


def test_commands_that_are_one_process_refuse_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_torchrun("sweep")
    for name, value in THIRD_OF_FOUR.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=r"`jepa-lab sweep` is not for torchrun, which has started it 4 times"):
        refuse_torchrun("sweep")


def test_processes_need_a_device_each(monkeypatch: pytest.MonkeyPatch) -> None:
    second, chosen = Processes(Place(1, 2, 1, 2)), []
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert second.on_device(compute_on("cuda")).device == torch.device("cuda:1")
    assert chosen == [torch.device("cuda:1")]
    assert second.on_device(compute_on("cpu")).device == torch.device("cpu")
    with pytest.raises(DeviceError, match=r"'cuda:0' names one GPU.*use training.device=cuda"):
        second.on_device(compute_on("cuda:0"))
    with pytest.raises(DeviceError, match=r"a Mac has one GPU.*training.device=cpu"):
        second.on_device(compute_on("mps"))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(DeviceError, match=r"which has 1 GPU\(s\).*--nproc-per-node 1"):
        second.on_device(compute_on("cuda"))
