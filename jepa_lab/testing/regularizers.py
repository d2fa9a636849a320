"""What every regulariser keeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch

from jepa_lab.maskers.base import Masks
from jepa_lab.maskers.patches import Patches
from jepa_lab.registry import ComponentParams, Entry
from jepa_lab.regularizers.base import ImagesAtOnce, Regularizer, Representations
from jepa_lab.testing.randomness import seeded
from jepa_lab.testing.steps import InTheStep


class RegularizerContract(InTheStep):
    """Tests of a `Regularizer`."""

    overrides = ("regularizer={}",)
    fitting = ImagesAtOnce(32, 1)
    breaking: ClassVar[Sequence[Any]] = (ImagesAtOnce(4, 4), ImagesAtOnce(4, 2, 2))

    def test_terms_are_finite_scalars_with_gradients_for_what_is_trained_alone(
        self, entry: Entry[Regularizer], params: ComponentParams
    ) -> None:
        generator = seeded()
        context = torch.randn(4, 1, 5, 6, generator=generator, requires_grad=True)
        predictions = torch.randn(4, 1, 2, 3, 6, generator=generator, requires_grad=True)
        targets = torch.randn(4, 1, 2, 3, 6, generator=generator)
        masks = Masks(
            Patches(torch.zeros(4, 1, 5, dtype=torch.int64), torch.ones(4, 1, 5, dtype=torch.bool)),
            Patches(torch.zeros(4, 2, 3, dtype=torch.int64)),
        )
        terms = entry.component(params).terms(Representations(context, predictions, targets, masks))
        for term in terms.values():
            assert term.value.ndim == 0
            assert torch.isfinite(term.value)
        if terms:
            torch.stack([term.value for term in terms.values()]).sum().backward()
            assert context.grad is not None or predictions.grad is not None
