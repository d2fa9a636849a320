"""Named and relative sizes."""

from __future__ import annotations

import pytest

from jepa_lab.models.sizes import ENCODER_SIZES, PREDICTOR_SIZES, ModelSize


def predictor(name: str, encoder: ModelSize) -> str:
    entry = PREDICTOR_SIZES.get(name)
    return str(entry.component(entry.params_type()).resolve(encoder))


@pytest.mark.parametrize(
    ("name", "expected"),
    [("half", "96x3x6"), ("full", "192x6x6"), ("quarter", "48x2x6"), ("192x3", "192x3x3"), ("384x6", "384x6x6"),
     ("768x12", "768x12x12"), ("1024x12", "1024x12x16")],
)  # fmt: skip
def test_predictor_sizes_beside_the_cifar_encoder(name: str, expected: str) -> None:
    assert predictor(name, ModelSize(192, 6, 6)) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [("cifar", "192x6x6"), ("tiny", "192x12x3"), ("small", "384x12x6"), ("base", "768x12x12"),
     ("large", "1024x24x16"), ("huge", "1280x32x16"), ("giant", "1408x40x16")],
)  # fmt: skip
def test_encoder_sizes(name: str, expected: str) -> None:
    entry = ENCODER_SIZES.get(name)
    assert str(entry.component(entry.params_type()).resolve()) == expected


def test_giant_has_the_published_mlp_width() -> None:
    entry = ENCODER_SIZES.get("giant")
    size = entry.component(entry.params_type()).resolve()
    assert int(size.embed_dim * size.mlp_ratio) == 6144
