"""The least memory that a pipeline can do with, compared with the machine's before anything is built.

Lower bounds in closed form: what passes can still run out of memory (`memory_errors` then names the remedies), but a
number with a few zeros too many is refused at once, with the number, instead of driving the machine into its swap.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from jepa_lab.config.pipeline import Pipeline
from jepa_lab.data.base import DATASETS, ImageDataset
from jepa_lab.data.required import require_counts
from jepa_lab.errors import ConfigError, Key
from jepa_lab.grid import Grid
from jepa_lab.models.sizes import ModelSize

MAX_PATCHES = 1 << 14
"""128 x 128 patches: attention over more would be 2**28 scores a head and image."""

_FLOAT_BYTES = 4
_INDEX_BYTES = 8
_ENCODER_COPIES = 5  # context and target encoder, gradients, AdamW's two moments
_PREDICTOR_COPIES = 4
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes that a part of a run takes at the least.

    Attributes:
        what: the part in words, with the numbers that it follows from.
        keys: of the pipeline, that it follows from. remedy: what to change.
    """

    what: str
    num_bytes: float
    keys: tuple[str, ...]
    remedy: str


def memory_needs(pipeline: Pipeline, grid: Grid, encoder: ModelSize, predictor: ModelSize) -> list[MemoryNeed]:
    """What the model, the images of a step and its masks take at the least on the device that trains."""
    channels = DATASETS.entry_of(pipeline.data.dataset).component.num_channels
    side, batch_size = pipeline.data.image_size, pipeline.training.batch_size
    patch_dim = channels * float(pipeline.encoder.patch_size) ** 2
    in_encoder = num_parameters(encoder) + patch_dim * encoder.embed_dim
    in_predictor = num_parameters(predictor) + 2.0 * encoder.embed_dim * predictor.embed_dim
    stored = pipeline.data.image_size if pipeline.data.resize is None else pipeline.data.resize
    part = batch_size // pipeline.training.accumulation_steps
    images = float(part) * channels * side**2
    blocks = getattr(pipeline.masker, "num_targets", 1)
    return [
        MemoryNeed(
            f"the weights of the encoder ({in_encoder:.3g}) and the predictor ({in_predictor:.3g}), their gradients "
            "and AdamW's moments",
            _FLOAT_BYTES * (_ENCODER_COPIES * in_encoder + _PREDICTOR_COPIES * in_predictor),
            ("encoder.size", "encoder.patch_size", "predictor.size"),
            "take a smaller encoder.size, predictor.size or encoder.patch_size",
        ),
        MemoryNeed(
            f"{part:,} images of {channels} x {side:,} x {side:,} numbers at once",
            _FLOAT_BYTES * images,
            ("data.image_size", "training.batch_size", "training.accumulation_steps"),
            "lower data.image_size or training.batch_size, or raise training.accumulation_steps",
        ),
        MemoryNeed(
            f"a batch of {batch_size:,} stored pictures of {channels} x {stored:,} x {stored:,} numbers",
            float(_FLOAT_BYTES) * batch_size * channels * stored**2,
            ("data.resize", "data.image_size", "training.batch_size"),
            "lower data.resize or training.batch_size",
        ),
        MemoryNeed(
            f"the masks of {batch_size:,} images with {blocks} target blocks on {grid} patches",
            float(_INDEX_BYTES) * batch_size * blocks * grid.num_patches,
            ("training.batch_size", "masker", "data.image_size", "encoder.patch_size"),
            "lower training.batch_size or masker.num_targets, or raise encoder.patch_size",
        ),
    ]


def check_images_fit(dataset: ImageDataset, size: Key) -> None:
    """Refuse a data set that comes in one piece and cannot be held; one of image files can stream.

    Args:
        size: the setting that the size of the images comes from.
    Raises:
        ConfigError: with the numbers. DataError: the files are missing.
    """
    if dataset.image_files() is not None:
        return
    num_images = dataset.num_train_images()
    require_counts(dataset, num_images, None)
    num_bytes = float(num_images) * dataset.num_channels * dataset.image_size**2
    available = machine_memory_bytes()
    if num_bytes > available:
        raise ConfigError(
            size,
            f"={dataset.image_size:,} and {num_images:,} training images take {in_words(num_bytes)} of memory, and "
            f"this machine has {in_words(available)}; lower ",
            size,
            ", or take fewer images",
            keys=["dataset"],
        )


def num_parameters(size: ModelSize) -> float:
    """Weights of the matrices of a transformer, without biases and norms; infinite where no integer holds them."""
    width = float(size.embed_dim)
    return size.depth * (4 * width**2 + 2 * width * (width * size.mlp_ratio))


def device_memory_bytes(device: torch.device) -> int:
    """All memory of the device: of the accelerator, or of this machine."""
    if device.type == "cuda":
        return torch.cuda.get_device_properties(device).total_memory
    return machine_memory_bytes()


def machine_memory_bytes() -> int:
    """Memory of this machine, or of the container where that has less."""
    physical = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        limit = _CGROUP_LIMIT.read_text(encoding="ascii").strip()
    except OSError:  # no such control group
        return physical
    return min(physical, int(limit)) if limit.isdecimal() else physical


def in_words(num_bytes: float) -> str:
    """A number of bytes for people."""
    for unit in ("bytes", "KiB", "MiB", "GiB", "TiB"):
        if num_bytes < 1024:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:,.0f} PiB" if num_bytes < 1e6 else "more than a million PiB"
