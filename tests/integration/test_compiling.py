"""A compiled run: compiled once, at its first step, and found again by the next process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch._inductor.config
from torch._dynamo.utils import counters

from jepa_lab.composition.start import start_run
from jepa_lab.errors import DeviceError
from jepa_lab.resume import resume_run
from jepa_lab.testing.steps import whole_step
from jepa_lab.tracking.run_folder import RunFolder
from jepa_lab.training import compiling
from jepa_lab.training.compiling import FEWEST_STEPS, missing_for_compiling
from tests.integration.pipelines import load_tiny, write_tiny
from tests.integration.runs import assert_same_run, killed_run, tensor_files

needs_a_compiler = pytest.mark.skipif(
    missing_for_compiling(torch.device("cpu")) is not None, reason="needs a C++ compiler and Python's header files"
)

# What decides about the shapes and the graph of a step.
KINDS = {
    "pad": [],
    "prefix": ["context_batching=prefix"],
    "subset, joint": ["context_batching=subset", "predictor.target_sequences=joint"],
    "drop path, in parts, recomputing": [
        "encoder.size.depth=2",
        "encoder.drop_path_rate=0.2",
        "training.accumulation_steps=3",
        "training.activation_checkpointing=true",
    ],
    "hierarchy, regularizer, whole pictures": [
        "regularizer=vicreg",
        "encoder.patch_size=1",
        "hierarchy={num_levels: 3, loss_weights: [1, 1, 1], predictor: shared_level_tokens}",
        "augmentation={name: minimal, crop_scale: [0.5, 1.0]}",
    ],
    "the encoder's positions in the predictor": ["encoder.position=learned", "predictor.position=from_encoder"],
}


@pytest.fixture
def traced_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Models are traced as for compiling, and their graphs run as they are: seconds instead of minutes."""
    torch.compiler.reset()
    counters.clear()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")  # what a run sets is forgotten
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    monkeypatch.setattr(compiling, "missing_for_compiling", lambda device: None)  # such graphs need nothing


@pytest.mark.usefixtures("traced_alone")
@pytest.mark.parametrize("kind", KINDS)
def test_a_run_compiles_one_graph_at_its_first_step_and_none_later(kind: str, tmp_path: Path) -> None:
    """Two epochs of several steps, each evaluated, on a validation split that is no multiple of the batch."""
    run = start_run(
        load_tiny(tmp_path, "training.compile=on", "training.epochs=2", *KINDS[kind]), tmp_path / "runs", ["test"]
    )
    assert run.result["step"]["compiled"] is True
    assert counters["stats"]["unique_graphs"] == 1, dict(counters["stats"])
    assert not counters["graph_break"]


@pytest.mark.usefixtures("traced_alone")
@pytest.mark.parametrize("has_kernel", [False, True])
def test_one_graph_serves_all_sizes_of_the_buffers_of_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_kernel: bool
) -> None:
    varlen = pytest.importorskip("torch.nn.attention.varlen")
    monkeypatch.setattr(varlen, "varlen_attn", lambda query, key, value, starts, *rest: query + 0 * starts.sum())
    monkeypatch.setattr("jepa_lab.build.has_kernel_for_variable_lengths", lambda *given: has_kernel)
    overrides = ("data.image_size=16", "masker=multi_block", "context_batching=prefix", "training.batch_size=32")
    step = whole_step(load_tiny(tmp_path, *overrides).pipeline, compiled=True)
    shapes = set()
    for number in range(1, 9):
        batch, drawn = step.batches.next_images(), step.prepared(number)
        if drawn.shape not in shapes:
            step.on_device(batch, drawn)
        shapes.add(drawn.shape)
    assert len(shapes) > 2
    assert counters["stats"]["unique_graphs"] == 1, dict(counters["stats"])


@pytest.mark.usefixtures("traced_alone")
@pytest.mark.parametrize("compiled", [True, False])
def test_a_resumed_run_compiles_if_it_did_before_whatever_auto_would_choose_now(
    compiled: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(FEWEST_STEPS, "cpu", 1 if compiled else 10**9)
    whole = start_run(load_tiny(tmp_path), tmp_path / "whole", ["test"])
    folder = killed_run(tmp_path, monkeypatch, 6)
    monkeypatch.setitem(FEWEST_STEPS, "cpu", 10**9 if compiled else 1)
    resumed = resume_run(folder, None, ["test"])
    assert [run.result["step"]["compiled"] for run in (whole, resumed)] == [compiled, compiled]
    assert_same_run(resumed.folder, whole.folder)


@needs_a_compiler
def test_a_compiler_that_fails_is_told_with_the_remedy_and_no_bug_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "false")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "nothing"))
    monkeypatch.setattr(torch._inductor.config.cpp, "cxx", (None, "false"))  # read when it was imported
    torch.compiler.reset()
    with pytest.raises(DeviceError, match=r"torch\.compile failed \(.*\); the traceback.*training\.compile=off"):
        start_run(load_tiny(tmp_path, "training.compile=on"), tmp_path / "runs", ["test"])
    (path,) = (tmp_path / "runs").iterdir()
    folder = RunFolder.open(path)
    assert "Traceback" in folder.log.read_text()
    assert folder.read_result()["status"] == "FAILED"  # type: ignore[index]


COUNTED = """
import json, sys
from pathlib import Path
from torch._dynamo.utils import counters
from jepa_lab.config.loading import load_pipeline
from jepa_lab.composition.start import start_run
run = start_run(load_pipeline(Path(sys.argv[1]), sys.argv[3:]), Path(sys.argv[2]), ["test"])
names = ("fxgraph_cache_hit", "fxgraph_cache_miss", "fxgraph_cache_bypass")
counted = {name: counters["inductor"][name] for name in names}
print(json.dumps({**counted, "folder": str(run.folder.path)}))
"""


def start_in_a_process(folder: Path, cache: Path) -> dict[str, Any]:
    """What a process counts that runs the tiny pipeline, compiled."""
    file = write_tiny(folder)
    done = subprocess.run(
        [sys.executable, "-c", COUNTED, str(file), str(folder / "runs"), "training.compile=on", "training.epochs=1"],
        capture_output=True,
        text=True,
        check=False,
        env={name: value for name, value in os.environ.items() if name != "TORCHINDUCTOR_CACHE_DIR"}
        | {"JEPA_LAB_CACHE": str(cache)},
    )
    assert done.returncode == 0, done.stderr
    counted: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return counted


@pytest.mark.slow
@needs_a_compiler
def test_the_second_start_of_a_pipeline_compiles_nothing_and_trains_the_same(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    first, second = (start_in_a_process(tmp_path, cache) for _ in range(2))
    assert first["fxgraph_cache_miss"] == 2, "forward and backward"
    assert (second["fxgraph_cache_miss"], second["fxgraph_cache_bypass"]) == (0, 0)
    assert second["fxgraph_cache_hit"] == 2
    folders = [RunFolder.open(Path(each["folder"])) for each in (first, second)]
    assert tensor_files(folders[0]) == tensor_files(folders[1])
    assert all(f"kept in {cache / 'compiled'}" in folder.log.read_text() for folder in folders)
