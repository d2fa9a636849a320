"""Which position embeddings go where."""

from __future__ import annotations

from jepa_lab.grid import Grid
from jepa_lab.positions.base import POSITIONS, PositionInputs

ENCODER_POSITIONS = [
    entry.name
    for entry in POSITIONS
    if entry.component.check(entry.params_type(), PositionInputs(Grid(4, 4), 24, 3)) is None
]
"""Names of those that an encoder can have; `from_encoder` is for predictors alone."""

PAIRS = [*((name, name) for name in ENCODER_POSITIONS), ("learned", "from_encoder"), ("sincos", "from_encoder")]
"""Names of embeddings of the encoder and the predictor that go together, each of them at least once."""
