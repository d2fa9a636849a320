"""What every kind of source of weights keeps."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from jepa_lab.errors import ConfigError
from jepa_lab.registry import Entry
from jepa_lab.testing.places import WithoutSettings
from jepa_lab.testing.randomness import global_generators, seeded
from jepa_lab.weights.encoder_parts import EncoderParts
from jepa_lab.weights.foreign_weights import ForeignEncoder
from jepa_lab.weights.plain import plain_encoder_of
from jepa_lab.weights.sources.base import WEIGHT_SOURCES, SourceContext, WeightSource, load_source


class WeightSourceContract(WithoutSettings):
    """Tests of a `WeightSource`; override `text`, which gives one place that it can read."""

    @pytest.fixture
    def text(self, tmp_path: Path) -> str:
        """What a user gives for a place of this kind; files of it belong into `tmp_path`."""
        raise NotImplementedError(f"{type(self).__name__} needs a fixture `text` that makes a place of this kind")

    @pytest.fixture
    def context(self) -> SourceContext:
        """What is known beside the text."""
        return SourceContext()

    @pytest.fixture
    def source(self, entry: Entry[WeightSource]) -> WeightSource:
        """The kind of source."""
        return entry.component(entry.params_type())

    def test_it_alone_recognises_its_places(
        self, entry: Entry[WeightSource], text: str, context: SourceContext
    ) -> None:
        found = [each.name for each in WEIGHT_SOURCES if each.component(each.params_type()).recognises(text, context)]
        assert found == [entry.name]

    def test_what_is_no_place_of_this_kind_is_left_to_others(
        self, source: WeightSource, context: SourceContext, tmp_path: Path
    ) -> None:
        (tmp_path / "empty").mkdir()
        (tmp_path / "notes.txt").write_text("no weights")
        for other in ("", ".", "no such name", str(tmp_path / "empty"), str(tmp_path / "notes.txt"), "a\nb", "x" * 300):
            assert not source.recognises(other, context), other

    def test_an_encoder_comes_whole_and_computes_finite_features(self, text: str, context: SourceContext) -> None:
        found = load_source(text, context)
        assert isinstance(found, ForeignEncoder)
        parts = found.parts
        assert found.source
        assert all(tensor.device.type == "cpu" and tensor.dtype == torch.float32 for tensor in _tensors(parts))
        assert parts.std.min() > 0
        images = torch.randn(2, parts.num_channels, *parts.image_size, generator=seeded())
        with torch.no_grad():
            features = plain_encoder_of(parts).last_layers(images, 1)
        assert features.shape == (2, parts.grid.num_patches, parts.size.embed_dim)
        assert torch.isfinite(features).all()
        assert (features[0] - features[1]).abs().max() > 0

    def test_reading_again_gives_the_same_and_changes_nothing(
        self, text: str, context: SourceContext, tmp_path: Path
    ) -> None:
        files, state = _digests(tmp_path), global_generators()
        first = load_source(text, context).parts
        assert global_generators() == state, "loading draws from a global generator"
        second = load_source(text, context).parts
        assert all(torch.equal(one, two) for one, two in zip(_tensors(first), _tensors(second), strict=True))
        assert _digests(tmp_path) == files

    def test_the_context_encoder_is_read_or_refused(
        self, source: WeightSource, text: str, context: SourceContext
    ) -> None:
        other = SourceContext(context.roots, context.size, context.uri, encoder="context", step=context.step)
        try:
            found = load_source(text, other)
        except ConfigError as error:
            assert "context encoder" in str(error)  # noqa: PT017
        else:
            assert source.may_hold_both
            assert found.parts.size == load_source(text, context).parts.size


def _tensors(parts: EncoderParts) -> list[torch.Tensor]:
    """All of an encoder, in a fixed order."""
    found = [parts.weights[name] for name in sorted(parts.weights)]
    return [*found, parts.position_table, *(parts.rotation or ()), parts.prefix, parts.mean, parts.std]


def _digests(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
