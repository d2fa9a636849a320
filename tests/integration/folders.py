"""Runs on folders of images: the tiny pipeline on 3 classes of small files."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from jepa_lab.config.loading import LoadedPipeline
from tests.integration.pipelines import load_tiny
from tests.unit.data.files import write_image

CLASSES = ("ant", "bee", "wasp")
NUM_TRAIN, NUM_TEST = 24, 6
"""Images of each class."""


def write_photos(root: Path) -> Path:
    """`train/<class>/` and `test/<class>/`, the classes told apart by their colour."""
    random = np.random.RandomState(0)
    for split, count in (("train", NUM_TRAIN), ("test", NUM_TEST)):
        for label, name in enumerate(CLASSES):
            for number in range(count):
                pixels = random.randint(0, 230, (10, 12, 3))
                pixels[..., label] += 20
                write_image(root / split / name / f"{number:02d}.png", pixels)
    return root


def copied(root: Path, target: Path) -> Path:
    """A copy of a folder that a test may spoil; times of change are kept."""
    shutil.copytree(root, target)
    return target


def load_photos(folder: Path, root: Path, *overrides: str) -> LoadedPipeline:
    """The tiny pipeline on the files under `root`."""
    return load_tiny(
        folder,
        "data={dataset: image_folder, image_size: 8, validation_fraction: 0.25}",
        f"data.root={root}",
        "augmentation={name: minimal, flip_probability: 0.5}",
        "training={epochs: 3, batch_size: 12, log_every_steps: 2, checkpoint_every_steps: 4, device: cpu, "
        "num_threads: 1}",
        *overrides,
    )
