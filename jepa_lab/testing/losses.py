"""What every loss keeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
import torch

from jepa_lab.losses.base import Loss
from jepa_lab.registry import ComponentParams, Entry
from jepa_lab.testing.randomness import seeded
from jepa_lab.testing.steps import InTheStep


class LossContract(InTheStep):
    """Tests of a `Loss`."""

    overrides = ("loss={}",)
    fitting = 48
    breaking: ClassVar[Sequence[Any]] = (1,)

    @pytest.fixture
    def loss(self, entry: Entry[Loss], params: ComponentParams) -> Loss:
        """The loss."""
        return entry.component(params)

    def test_it_is_zero_at_the_target_and_grows_with_the_distance(self, loss: Loss) -> None:
        targets = torch.randn(2, 1, 3, 5, 8, generator=seeded())
        at_target = loss.per_patch(targets.clone(), targets)
        assert at_target.shape == (2, 1, 3, 5)
        assert torch.allclose(at_target, torch.zeros(2, 1, 3, 5), atol=1e-6)
        near, far = (loss.per_patch(targets + shift, targets) for shift in (0.1, 2.0))
        assert (near > 0).all()
        assert (far > near).all()

    def test_its_gradient_leads_to_the_target(self, loss: Loss) -> None:
        targets = torch.randn(2, 1, 3, 5, 8, generator=seeded())
        moved = (targets + 0.5).requires_grad_()
        before = loss.per_patch(moved, targets)
        before.sum().backward()
        assert moved.grad is not None
        assert (loss.per_patch(moved - 0.01 * moved.grad, targets) < before).all()

    def test_patches_do_not_see_each_other(self, loss: Loss) -> None:
        predictions, targets = (torch.randn(4, 2, 3, 5, 8, generator=seeded(seed)) for seed in (0, 1))
        whole = loss.per_patch(predictions, targets)
        assert torch.allclose(whole[:1, :, :, :2], loss.per_patch(predictions[:1, :, :, :2], targets[:1, :, :, :2]))
