"""CIFAR-10: 60,000 colour photographs of 10 classes, 32 x 32 pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jepa_lab.data.base import DATASETS
from jepa_lab.data.cifar import Cifar


@DATASETS.register(
    "cifar10",
    summary="CIFAR-10, 10 classes, 32x32: python batches (downloaded if missing) or a train/<class>/ tree",
    source="Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images",
)
class Cifar10(Cifar):
    """50,000 training and 10,000 test images; see `Cifar` for where they are looked for."""

    title = "CIFAR-10"
    num_classes = 10
    default_root = Path("data/cifar10")
    label_key = "labels"

    @staticmethod
    def published() -> Any:
        from torchvision.datasets import CIFAR10

        return CIFAR10
