"""CIFAR-100: 60,000 colour photographs of 100 classes, 32 x 32 pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jepa_lab.data.base import DATASETS
from jepa_lab.data.cifar import Cifar


@DATASETS.register(
    "cifar100",
    summary="CIFAR-100, 100 classes, 32x32: python batches (downloaded if missing) or a train/<class>/ tree",
    source="Krizhevsky 2009, Learning Multiple Layers of Features from Tiny Images",
)
class Cifar100(Cifar):
    """50,000 training and 10,000 test images with fine labels; see `Cifar` for where they are looked for."""

    title = "CIFAR-100"
    num_classes = 100
    default_root = Path("data/cifar100")
    label_key = "fine_labels"

    @staticmethod
    def published() -> Any:
        from torchvision.datasets import CIFAR100

        return CIFAR100
