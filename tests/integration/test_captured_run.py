"""Whole runs whose step is captured, on a stand-in for CUDA graphs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from jepa_lab.composition.outcome import RunOutcome
from jepa_lab.composition.start import start_run
from jepa_lab.errors import DeviceError
from jepa_lab.resume import resume_run
from jepa_lab.tracking.metrics import read_metrics
from jepa_lab.training import devices
from tests.integration.pipelines import load_tiny
from tests.integration.runs import assert_same_run, killed_run, timeless_rows
from tests.recorded_graph import Recorder

VARIED = ("encoder.drop_path_rate=0.2", "encoder.size.depth=2", "probe.method.c_grid=[0.1]", "loss=l2")


@pytest.fixture
def recorders(monkeypatch: pytest.MonkeyPatch) -> list[Recorder]:
    """Let runs on this CPU capture their step; filled with what captured them."""
    made: list[Recorder] = []

    def build(device: object) -> Recorder:
        made.append(Recorder())
        return made[-1]

    monkeypatch.setattr("jepa_lab.build.CudaGraphs", build)
    monkeypatch.setattr(devices, "_resolve_capture", lambda choice, device: choice != "off")
    return made


def run(folder: Path, *overrides: str) -> RunOutcome:
    return start_run(load_tiny(folder, *VARIED, *overrides), folder / "runs", [])


def test_a_captured_run_has_the_rows_of_an_uncaptured_one_with_the_same_shapes(
    tmp_path: Path, recorders: list[Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = run(tmp_path)
    (recorder,) = recorders
    assert (recorder.captures, recorder.replays) == (1, 15)
    assert "the whole step is captured as one graph" in found.folder.log.read_text()
    assert found.result["step"] == {"compiled": False, "captured": True}
    # What is drawn for the masks is the same in any case, but tokens that lie elsewhere are summed up otherwise.
    monkeypatch.setattr(devices.Compute, "draws_ahead", True)
    plain = run(tmp_path, "training.capture=off")
    assert plain.result["step"] == {"compiled": False, "captured": False}
    assert timeless_rows(found.folder) == timeless_rows(plain.folder)


@pytest.mark.parametrize("kill_at", [1, 6])
def test_a_captured_run_that_was_killed_and_resumed_is_bitwise_the_uninterrupted_one(
    tmp_path: Path, recorders: list[Recorder], monkeypatch: pytest.MonkeyPatch, kill_at: int
) -> None:
    (tmp_path / "whole").mkdir()
    whole = run(tmp_path / "whole")
    killed = killed_run(tmp_path, monkeypatch, kill_at, *VARIED)
    resume_run(killed, None, [])
    assert_same_run(killed, whole.folder)
    assert [recorder.captures for recorder in recorders] == [1, 1, 1]


def test_a_run_that_must_be_captured_ends_with_a_sentence_where_it_cannot_be(
    tmp_path: Path, recorders: list[Recorder]
) -> None:
    crowded = "masker={name: multi_block, context_scale: [0.1, 0.3], min_context_patches: 2}"
    with pytest.raises(DeviceError, match=r"training.capture=on: .*redraw.py.*training.capture=auto") as caught:
        run(tmp_path, crowded, "training.capture=on")
    assert caught.value.exit_code == 2


def test_capturing_without_cuda_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"training.capture=on captures CUDA graphs, and the device is cpu"):
        run(tmp_path, "training.capture=on")
    assert not (tmp_path / "runs").exists()


ON_GPU = ("training.device=cuda", "training.compile=off")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("batching", ["pad", "prefix"])
def test_on_a_gpu_a_captured_run_that_was_killed_and_resumed_is_bitwise_the_uninterrupted_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batching: str
) -> None:
    overrides = (*ON_GPU, f"context_batching={batching}", "training.capture=on")
    (tmp_path / "whole").mkdir()
    whole = run(tmp_path / "whole", *overrides)
    assert whole.result["step"] == {"compiled": False, "captured": True}
    killed = killed_run(tmp_path, monkeypatch, 6, *VARIED, *overrides)
    resume_run(killed, None, [])
    assert_same_run(killed, whole.folder)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_captured_and_uncaptured_runs_end_with_nearly_the_same_loss(tmp_path: Path) -> None:
    ends = []
    for capture in ("on", "off"):
        (tmp_path / capture).mkdir()
        outcome = run(tmp_path / capture, *ON_GPU, f"training.capture={capture}")
        assert outcome.result["step"]["captured"] == (capture == "on")
        ends.append(read_metrics(outcome.folder.metrics)[-1].metrics["validation/loss"])
    assert ends[0] == pytest.approx(ends[1], rel=0.01)
