"""The mean loss of the steps that count."""

from __future__ import annotations

import math

import pytest
import torch

from jepa_lab.training.finite import AcceptedLoss

CPU = torch.device("cpu")


def test_refused_steps_do_not_count_in_the_mean_loss() -> None:
    loss = AcceptedLoss(CPU)
    for value, refused in ((2.0, 0.0), (math.inf, 1.0), (4.0, 0.0), (math.nan, 1.0)):
        loss.add(torch.tensor(value), torch.tensor(refused))
    assert loss.mean() == 3.0
    loss.reset()
    loss.add(torch.tensor(5.0), torch.tensor(0.0))
    assert loss.mean() == 5.0


def test_a_mean_over_refused_steps_alone_is_not_a_number() -> None:
    loss = AcceptedLoss(CPU)
    loss.add(torch.tensor(math.inf), torch.tensor(1.0))
    assert math.isnan(loss.mean())


def test_the_mean_goes_on_from_a_checkpoint() -> None:
    first, second = AcceptedLoss(CPU), AcceptedLoss(CPU)
    first.add(torch.tensor(1.0), torch.tensor(0.0))
    second.restore(first.state())
    second.add(torch.tensor(2.0), torch.tensor(0.0))
    assert second.mean() == pytest.approx(1.5)
