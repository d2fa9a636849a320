"""Features and labels for the probe tests."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits

from jepa_lab.probes.features import Labelled


def labelled(features: Any, labels: Any) -> Labelled:
    return torch.as_tensor(np.asarray(features), dtype=torch.float32), torch.as_tensor(np.asarray(labels)).long()


@functools.cache
def digit_splits() -> tuple[Labelled, Labelled, Labelled]:
    """400, 300 and 1,097 of scikit-learn's digits, as 64 pixels each."""
    features, labels = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(labels))
    parts = np.split(order, [400, 700])
    train, validation, test = (labelled(features[part], labels[part]) for part in parts)
    return train, validation, test


def blobs(num_images: int, seed: int, *, noise_features: int = 0, spread: float = 1.0) -> Labelled:
    """Three overlapping classes in two dimensions, beside features that say nothing."""
    generator = np.random.default_rng(seed)
    labels = np.arange(num_images) % 3
    centres = np.array([[0.0, 1.5], [1.3, -0.75], [-1.3, -0.75]])
    signal = centres[labels] + spread * generator.standard_normal((num_images, 2))
    return labelled(np.hstack([signal, generator.standard_normal((num_images, noise_features))]), labels)
