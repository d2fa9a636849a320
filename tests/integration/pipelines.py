"""A tiny pipeline for tests of whole runs: seconds on one CPU core."""

from __future__ import annotations

from pathlib import Path

from jepa_lab.config.loading import LoadedPipeline, load_pipeline

TINY = """\
name: tiny
data: {dataset: digits, image_size: 8, max_images: 160, validation_fraction: 0.25}
augmentation: {name: minimal, flip_probability: 0.0}
masker: {name: multi_block, num_targets: 2, min_context_patches: 2}
encoder:
  size: {name: custom, embed_dim: 16, depth: 1, num_heads: 2}
  patch_size: 2
predictor:
  size: {name: custom, embed_dim: 8, depth: 1, num_heads: 2}
training: {epochs: 3, batch_size: 24, log_every_steps: 2, checkpoint_every_steps: 4, device: cpu, num_threads: 1}
probe: {every_epochs: 1, method: {name: logistic, c_grid: [0.01, 1.0]}, additional: [{name: knn, neighbors: 5}]}
monitors: {end: [rankme, alpha_req, {name: lidar, views: 2}]}
tracking: none
"""


def write_tiny(folder: Path, text: str = TINY) -> Path:
    """Write the tiny pipeline and return its path."""
    file = folder / "tiny.yaml"
    file.write_text(text)
    return file


def load_tiny(folder: Path, *overrides: str) -> LoadedPipeline:
    """The tiny pipeline with overrides."""
    return load_pipeline(write_tiny(folder), overrides)
