"""What every export format keeps."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch
from torch import Tensor

from jepa_lab.grid import Grid
from jepa_lab.interop.export import TOLERANCE
from jepa_lab.interop.exports.base import ExportFormat
from jepa_lab.models.sizes import ModelSize
from jepa_lab.models.vit import VisionTransformer, initialize_weights
from jepa_lab.positions.base import POSITIONS
from jepa_lab.registry import Entry
from jepa_lab.testing.places import WithoutSettings
from jepa_lab.testing.randomness import seeded
from jepa_lab.weights.encoder_parts import EncoderParts, take_apart
from jepa_lab.weights.plain import plain_encoder_of

_WIDTH, _HEADS, _PATCH = 24, 2, 4
KINDS = {
    "fixed positions": ("sincos", None, 3),
    "learned positions and grey images": ("learned", None, 1),
    "layer scale": ("learned", 0.5, 3),
    "rotary positions": ("rope", None, 3),
}
"""Position embedding, layer scale and channels of encoders that differ in what a format can hold."""


class ExportFormatContract(WithoutSettings):
    """Tests of an `ExportFormat`; they are skipped where its packages are missing."""

    @pytest.fixture
    def writer(self, entry: Entry[ExportFormat]) -> ExportFormat:
        """The format."""
        missing = [name for name in entry.component.packages if importlib.util.find_spec(name) is None]
        if missing:
            pytest.skip(f"{', '.join(missing)} is not installed")
        return entry.component(entry.params_type())

    @pytest.mark.parametrize("kind", KINDS)
    def test_other_libraries_compute_our_features_or_a_sentence_says_what_cannot_be_held(
        self, writer: ExportFormat, tmp_path: Path, kind: str
    ) -> None:
        parts = encoder_parts(kind)
        objection = writer.objection(parts)
        if objection is not None:
            assert ";" in objection, "a remedy follows what cannot be held, after a semicolon"
            return
        images = torch.randint(0, 256, (3, parts.num_channels, *parts.image_size), generator=seeded(2)).byte()
        folder = tmp_path / "export"
        folder.mkdir()
        writer.write(parts, folder)
        found = writer.features(folder, images)
        expected = _our_features(parts, images)
        assert found.shape == expected.shape
        assert found.dtype == torch.float32
        assert (found - expected).abs().max() <= TOLERANCE
        assert list(tmp_path.iterdir()) == [folder], "files beside the folder"
        assert any(folder.iterdir())

    def test_at_least_one_kind_of_encoder_can_be_held(self, writer: ExportFormat) -> None:
        assert any(writer.objection(encoder_parts(kind)) is None for kind in KINDS)

    def test_the_encoder_is_left_as_it_was(self, writer: ExportFormat, tmp_path: Path) -> None:
        parts = next(each for each in map(encoder_parts, KINDS) if writer.objection(each) is None)
        before = {name: tensor.clone() for name, tensor in parts.weights.items()}
        writer.write(parts, tmp_path)
        assert all(torch.equal(before[name], parts.weights[name]) for name in before)

    def test_the_code_for_its_users_can_be_read_and_has_the_place_of_the_folder(self, writer: ExportFormat) -> None:
        usage = writer.usage()
        compile(usage.code, "usage", "exec")
        assert "FOLDER" in usage.code
        assert "jepa_lab" not in usage.code
        assert usage.library


def encoder_parts(kind: str) -> EncoderParts:
    """A small encoder of one of `KINDS`, for images of 12 px."""
    position, layer_scale, channels = KINDS[kind]
    grid = Grid(3, 3)
    entry = POSITIONS.get(position)
    embedding = entry.component(entry.params_type(), grid, _WIDTH, _HEADS)
    encoder = VisionTransformer(
        grid, _PATCH, channels, ModelSize(_WIDTH, 2, _HEADS), embedding, layer_scale=layer_scale
    )
    initialize_weights(encoder, seeded(1))
    mean, std = torch.tensor([0.4, 0.5, 0.6])[:channels], torch.tensor([0.2, 0.3, 0.4])[:channels]
    return take_apart(encoder.requires_grad_(False).eval(), mean, std, 1.0)


@torch.no_grad()
def _our_features(parts: EncoderParts, images: Tensor) -> Tensor:
    """[n, N, D]."""
    features: Tensor = plain_encoder_of(parts)(images / 255)[1]
    return features
