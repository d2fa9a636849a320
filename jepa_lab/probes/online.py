"""The cheap probe beside the training."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from jepa_lab.probes.arrays import CPU
from jepa_lab.probes.features import Labelled

_RIDGE = 1e-3
"""Penalty, relative to the number of images."""


def online_probe(train: Labelled, validation: Labelled, device: torch.device = CPU) -> float:
    """Validation accuracy of a ridge regression on the classes: the cheap probe beside the training.

    A closed form, so it neither stops early nor depends on how well the features are conditioned, which changes
    during training: on 14 sets of CIFAR-10 features and 24 of digits its accuracy ordered them as the full probe's
    validation accuracy did (Spearman 0.995 and 0.986), no worse than a logistic regression capped at 100 iterations
    that takes ten times as long. It lies several points below the full probe: compare it with itself alone.

    Args:
        device: that it is computed on, in double precision: the normal equations square the condition number.
    """
    features, labels = train[0].to(device).double(), train[1].to(device)
    mean, scale = _standardization(features)
    x = (features - mean) / scale  # [n, D'], of mean 0
    classes = labels.unique()  # sorted
    targets = 2.0 * F.one_hot(torch.searchsorted(classes, labels), len(classes)).double() - 1  # [n, classes]
    offset = targets.mean(dim=0)
    gram = x.T @ x
    gram.diagonal().add_(_RIDGE * len(labels))
    weights = torch.cholesky_solve(x.T @ (targets - offset), torch.linalg.cholesky(gram))  # [D', classes]
    scores = (validation[0].to(device).double() - mean) / scale @ weights + offset
    predicted = classes[scores.argmax(dim=1)]
    return int((predicted == validation[1].to(device)).sum()) / len(validation[1])


def _standardization(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each column, [D'] both; 1 for a column that is constant to rounding.

    The bound is scikit-learn's.
    """
    mean, variance = features.mean(dim=0), features.var(dim=0, correction=0)
    rounding = len(features) * torch.finfo(torch.float64).eps
    constant = variance <= rounding * variance + (rounding * mean) ** 2
    return mean, torch.where(constant, 1, variance.sqrt())
