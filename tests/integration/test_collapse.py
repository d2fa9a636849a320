"""The collapse rules, on a healthy run and on one that is forced to collapse."""

from __future__ import annotations

from pathlib import Path

import pytest

from jepa_lab.composition.start import start_run
from jepa_lab.config.loading import load_pipeline
from jepa_lab.tracking.metrics import read_metrics

PIPELINE = """\
name: collapse
data: {dataset: digits, image_size: 64, max_images: 300}
augmentation: {name: minimal, crop_scale: [0.6, 1.0], flip_probability: 0.0}
masker: {name: multi_block, num_targets: 4}
encoder:
  size: {name: custom, embed_dim: 48, depth: 2, num_heads: 3}
  patch_size: 16
  position: POSITION
predictor:
  size: {name: custom, embed_dim: 24, depth: 1, num_heads: 3}
  position: POSITION
optimizer: {learning_rate: 1.0e-3}
ema_momentum: {name: linear, start: 0.99, end: 0.999}
training: {epochs: 12, batch_size: 50, device: cpu, num_threads: 1}
probe: {every_epochs: 2, method: {name: logistic, c_grid: [1.0]}}
tracking: none
"""
FORCED = ["ema_momentum={name: constant, value: 0.0}", "target.normalization=none", "optimizer.learning_rate=5e-3"]
"""Without EMA the target follows the context encoder at once: equal features for all images are the easiest to
predict, and nothing fixes their scale."""
SMALL_PATCHES = ["data.image_size=16", "encoder.patch_size=2"]
"""Patches of four pixels: the fixed positions outweigh the content, and features lose the image most easily."""


def run(folder: Path, position: str, *overrides: str) -> tuple[bool, list[float]]:
    """Whether the run was marked, and its image variance ratio at the probe epochs."""
    folder.mkdir()
    file = folder / "collapse.yaml"
    file.write_text(PIPELINE.replace("POSITION", position))
    outcome = start_run(load_pipeline(file, overrides), folder / "runs", [])
    rows = read_metrics(outcome.folder.metrics)
    ratios = [row.metrics["monitor/image_variance_ratio"] for row in rows if "monitor/rankme" in row.metrics]
    return outcome.result["collapsed"], ratios


@pytest.mark.parametrize(
    "position", ["learned", *(pytest.param(name, marks=pytest.mark.slow) for name in ("rope", "sincos"))]
)
def test_healthy_runs_are_not_marked(tmp_path: Path, position: str) -> None:
    collapsed, _ = run(tmp_path / "healthy", position)
    assert not collapsed


def test_a_healthy_run_is_not_marked_where_the_same_run_forced_to_collapse_is(tmp_path: Path) -> None:
    slow = "ema_momentum={name: linear, start: 0.996, end: 1.0}"
    healthy, kept = run(tmp_path / "healthy", "sincos", *SMALL_PATCHES, slow)
    collapsed, lost = run(tmp_path / "forced", "sincos", *SMALL_PATCHES, *FORCED)
    assert not healthy
    assert collapsed
    assert kept[-1] > 4 * lost[-1]
