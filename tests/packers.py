"""Ways to lay tokens out that only tests ask for."""

from __future__ import annotations

from jepa_lab.models.packing import WithoutPadding

pack_exactly = WithoutPadding(encoder_dim=10**9, predictor_dim=10**9)
"""Without padding, sequences of one length always together: with tokens so wide every group pays."""
