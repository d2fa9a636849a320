"""The cheap probe beside the training."""

from __future__ import annotations

import numpy as np

from jepa_lab.probes.features import Labelled

_RIDGE = 1e-3
"""Penalty, relative to the number of images."""


def online_probe(train: Labelled, validation: Labelled) -> float:
    """Validation accuracy of a ridge regression on the classes: the cheap probe beside the training.

    A closed form, so it neither stops early nor depends on how well the features are conditioned, which changes
    during training: on 14 sets of CIFAR-10 features and 24 of digits its accuracy ordered them as the full probe's
    validation accuracy did (Spearman 0.995 and 0.986), no worse than a logistic regression capped at 100 iterations
    that takes ten times as long. It lies several points below the full probe: compare it with itself alone.
    """
    from sklearn.linear_model import RidgeClassifier
    from sklearn.preprocessing import StandardScaler

    features, labels = (part.numpy() for part in train)
    scaler = StandardScaler().fit(features)
    ridge = RidgeClassifier(alpha=_RIDGE * len(labels), solver="cholesky")
    # Double precision: the normal equations square the condition number.
    ridge.fit(scaler.transform(features).astype(np.float64), labels)
    held_out = scaler.transform(validation[0].numpy()).astype(np.float64)
    return float(ridge.score(held_out, validation[1].numpy()))
