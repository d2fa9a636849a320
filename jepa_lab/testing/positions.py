"""What every position embedding of an encoder keeps."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import pytest
import torch

from jepa_lab.grid import Grid
from jepa_lab.positions.base import PositionEmbedding, PositionInputs, apply_rotation
from jepa_lab.registry import ComponentParams, Entry
from jepa_lab.testing.randomness import seeded
from jepa_lab.testing.steps import InTheStep


class PositionContract(InTheStep):
    """Tests of a `PositionEmbedding` that encoders can have."""

    overrides = ("encoder.position={}", "predictor.position={}")
    fitting = PositionInputs(Grid(8, 8), 48, 4)
    breaking: ClassVar[Sequence[Any]] = (PositionInputs(Grid(3, 3), 6, 3), PositionInputs(Grid(3, 3), 24, 4))

    @pytest.mark.parametrize("grid", [Grid(4, 4), Grid(3, 5)], ids=str)
    def test_positions_keep_shape_and_follow_indices(
        self, entry: Entry[PositionEmbedding], params: ComponentParams, grid: Grid
    ) -> None:
        position, generator = entry.component(params, grid, 24, 3), seeded()
        for parameter in position.parameters():
            parameter.data.normal_(generator=generator)
        tokens = torch.randn(2, 4, 24, generator=generator)
        indices = torch.tensor([[0, 3, 7, 11], [11, 7, 3, 0]])
        added = position.add(tokens, indices)
        assert added.shape == tokens.shape
        assert torch.equal(position.add(tokens.flip(1), indices.flip(1)), added.flip(1))
        rotation = position.rotation(indices)
        if rotation is None:
            assert not torch.allclose(added, tokens)
            return
        assert torch.equal(added, tokens)
        heads = tokens.unflatten(-1, (3, 8)).transpose(1, 2)
        assert apply_rotation(heads, rotation).shape == heads.shape
