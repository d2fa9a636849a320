"""GPU memory is divided among the trials that share a GPU; so many that none could train are refused with a number."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys

import pytest
import torch

from jepa_lab.errors import ConfigError
from jepa_lab.sweeps.sharing import slots as slots_module
from jepa_lab.sweeps.sharing.memory import (
    CONTEXT_BYTES,
    GIB,
    LEAST_BYTES,
    bound_gpu_memory,
    free_memory,
    refuse_small_shares,
    share_of,
)
from jepa_lab.sweeps.sharing.mps_keeper import TOOL
from jepa_lab.sweeps.sharing.slots import Slots, refuse_too_many, visible_gpus
from tests.unit.sweeps.sharing.fake_mps import FakeMps


@pytest.mark.parametrize("slots", [2, 3, 8, 40])
def test_shares_and_contexts_together_fit_in_what_is_free(slots: int) -> None:
    assert slots * (share_of(80 * GIB, slots) + CONTEXT_BYTES) <= 80 * GIB


def test_the_number_that_the_refusal_names_fits_and_one_more_does_not() -> None:
    with pytest.raises(ConfigError) as refused:
        refuse_small_shares("0", 24 * GIB, 64, "--slots-per-gpu 64")
    text = str(refused.value)
    assert text.startswith("--slots-per-gpu 64 lets 64 trials share GPU 0, which has 24.0 GiB free: each needs")
    found = re.search(r"let (\d+) trials or fewer share a GPU", text)
    assert found is not None, text
    most = int(found[1])
    refuse_small_shares("0", 24 * GIB, most, "--slots-per-gpu")
    assert share_of(24 * GIB, most + 1) < LEAST_BYTES


def test_one_trial_on_a_gpu_is_never_refused() -> None:
    refuse_small_shares("0", 0, 1, "--slots 1")
    with pytest.raises(ConfigError):
        refuse_small_shares("0", 0, 2, "--slots 2")


def test_each_gpu_is_looked_at_with_the_slots_that_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots_module, "free_memory", lambda gpus: (40 * GIB, 1 * GIB))
    refuse_too_many(3, ["0", "1"], "--slots 3")  # two share the first, one has the second
    with pytest.raises(ConfigError, match=r"--slots 4 lets 2 trials share GPU 1, which has 1\.0 GiB free"):
        refuse_too_many(4, ["0", "1"], "--slots 4")


def test_a_slot_that_is_taken_away_leaves_its_memory_to_the_others(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("fake")
    FakeMps(folder, monkeypatch)
    slots = Slots(4, ["0", "1"], folder, mps=False)
    assert slots.sentences == ["trials that share a GPU take turns on it; with NVIDIA MPS they would run on it at once"]
    half = share_of(40 * GIB, 2)
    assert [slots.memory_bytes(slot, 4) for slot in range(4)] == [half] * 4
    assert [slots.memory_bytes(slot, 3) for slot in range(3)] == [half, None, half]
    assert slots.memory_bytes(0, 2) is None, "it has the GPU alone"


def test_where_cuda_does_not_work_nothing_is_bounded(tmp_path_factory: pytest.TempPathFactory) -> None:
    if torch.cuda.is_available():
        pytest.skip("needs a machine without a GPU")
    assert free_memory(("0",)) is None
    slots = Slots(2, ["0"], tmp_path_factory.mktemp("sweep"))
    assert (slots.memory_bytes(0, 2), slots.sentences) == (None, [])
    refuse_too_many(200, ["0"], "--slots 200")


@pytest.mark.parametrize(("num_bytes", "fraction"), [(10 * GIB, 0.25), (80 * GIB, 1.0), (None, 1.0)])
def test_a_bound_is_a_fraction_of_the_whole_gpu(
    monkeypatch: pytest.MonkeyPatch, num_bytes: int | None, fraction: float
) -> None:
    told: list[float] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (GIB, 40 * GIB))
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", told.append)
    bound_gpu_memory(num_bytes)
    assert told == [fraction]


_BEYOND_THE_BOUND = """
import torch
from jepa_lab.sweeps.sharing.memory import bound_gpu_memory
bound_gpu_memory(256 * 2**20)
def ask():
    return torch.empty(512 * 2**20, dtype=torch.uint8, device="cuda")
try:
    ask()
except torch.OutOfMemoryError:
    print("tensors")
try:
    with torch.cuda.graph(torch.cuda.CUDAGraph()):
        ask()
except torch.OutOfMemoryError:
    print("graphs")
bound_gpu_memory(None)
ask()
"""


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_bound_holds_for_tensors_and_for_the_memory_of_captured_graphs() -> None:
    done = subprocess.run([sys.executable, "-c", _BEYOND_THE_BOUND], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.split()) == (0, ["tensors", "graphs"]), done.stderr


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_a_process_in_a_shared_slot_computes_and_reaches_the_daemon(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    if shutil.which(TOOL) is None:
        pytest.skip(f"needs {TOOL} in PATH")
    slots = Slots(2, visible_gpus()[:1], tmp_path_factory.mktemp("sweep"))
    if not slots.uses_mps:
        pytest.skip(slots.sentences[0])
    code = "import torch; print(torch.ones(8, 8, device='cuda').sum().item()); input()"
    computing = [sys.executable, "-c", code]
    process = subprocess.Popen(
        computing,
        env=slots.environment(1),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pass_fds=slots.inherited(1),
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "64.0"
    asked = subprocess.run(
        [TOOL], input="get_server_list\n", env=slots.environment(1), capture_output=True, text=True, check=True
    )
    process.communicate("\n")
    slots.close()
    assert asked.stdout.strip(), "a daemon starts its server for its first client"
