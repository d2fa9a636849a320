"""`encoder.weights`: pretraining that starts from the weights of another encoder."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from jepa_lab.config.checks import pipeline_geometry
from jepa_lab.config.pipeline import Pipeline
from jepa_lab.errors import ConfigError, Key
from jepa_lab.models.ijepa import IJepa
from jepa_lab.models.vit import LAYER_NORM_EPS, VisionTransformer
from jepa_lab.positions.learned import LearnedPosition, resample
from jepa_lab.weights.encoder_parts import EncoderParts
from jepa_lab.weights.sources import WEIGHT_SOURCES
from jepa_lab.weights.sources.base import SourceContext, load_source

logger = logging.getLogger(__name__)

_KEY = "encoder.weights"
_TOLERANCE = 1e-3
_LARGEST_EPS = 1e-5


@dataclass(frozen=True)
class WarmStart:
    """Weights that both encoders begin with.

    Attributes:
        state: by the names of the encoder, its trained positions included.
        sha256: of the weights as the source holds them.
        notes: sentences about what differs.
    """

    source: str
    state: dict[str, Tensor]
    sha256: str
    notes: tuple[str, ...]

    def begin(self, model: IJepa) -> None:
        """Give both encoders the weights, in place; the predictor and all else stay as they are."""
        for encoder in (model.context_encoder, model.target_encoder):
            encoder.load_state_dict(self.state)
        logger.info("both encoders start with the weights of %s (SHA-256 %s)", self.source, self.sha256)
        for note in self.notes:
            logger.warning(note)


def read_warm_start(pipeline: Pipeline, model: IJepa, roots: Sequence[Path]) -> WarmStart | None:
    """The weights that `encoder.weights` names, for the encoders of this model; None where it names none.

    Args:
        model: at step 0; it is left as it is.
        roots: folders of run folders, whose names may be given.
    Raises:
        ConfigError: they cannot be read, or are those of another architecture.
    """
    source = pipeline.encoder.weights
    if source is None:
        return None
    assert WEIGHT_SOURCES.names(), "sources register on import"
    found = load_source(source, SourceContext(roots, pipeline_geometry(pipeline).encoder))
    parts = found.parts
    encoder = model.target_encoder
    _refuse_other_architecture(source, parts, encoder)
    state = {**parts.weights, **_positions(source, parts, encoder)}
    _refuse_other_tensors(source, state, encoder)
    notes = []
    if found.left_out:
        notes.append(f"{_KEY}: {', '.join(found.left_out)} of {source} is left out, as no part of an encoder")
    if parts.layer_norm_eps != LAYER_NORM_EPS:
        notes.append(
            f"{_KEY}: {source} was trained with {parts.layer_norm_eps:g} added to the variances of its norms, "
            f"which is {LAYER_NORM_EPS:g} here"
        )
    return WarmStart(source, state, _digest(parts), tuple(notes))


def _refuse_other_architecture(source: str, parts: EncoderParts, encoder: VisionTransformer) -> None:
    """Raises:
    ConfigError: sizes differ, with what the pipeline would have to say.
    """
    size, own = parts.size, encoder.size
    channels = encoder.patch_embed.proj.weight.shape[1]
    compared = {
        "encoder.size: width, blocks, heads": (str(size), str(own)),
        "encoder.patch_size": (parts.patch_size, encoder.patch_embed.patch_size),
        "channels of the images": (parts.num_channels, channels),
        "hidden width of the MLPs": (parts.hidden_dim, int(own.embed_dim * own.mlp_ratio)),
    }
    different = [f"{name} {theirs} there, {ours} here" for name, (theirs, ours) in compared.items() if theirs != ours]
    if different:
        raise ConfigError(
            Key(_KEY, ""),
            f": the encoder of {source} is another one: {'; '.join(different)}; change the pipeline or the source",
        )
    if len(parts.prefix):
        raise ConfigError(
            Key(_KEY, ""),
            f": the encoder of {source} has {len(parts.prefix)} token(s) beside its patches, such as a class token, "
            "and encoders here have none; `jepa-lab probe --encoder` can measure it",
        )
    if parts.layer_norm_eps > _LARGEST_EPS:
        raise ConfigError(
            Key(_KEY, ""),
            f": the norms of {source} add {parts.layer_norm_eps:g} to variances, which changes what they do",
        )


def _positions(source: str, parts: EncoderParts, encoder: VisionTransformer) -> dict[str, Tensor]:
    """The trained positions for the encoder's grid; fixed ones must be those that the source was trained with.

    Raises:
        ConfigError: they are others.
    """
    position = encoder.position
    if isinstance(position, LearnedPosition):
        if parts.positions is None or parts.rotation is not None:
            raise ConfigError(
                Key("encoder.position", ""),
                f"=learned, and the encoder of {source} has no positions that are added to tokens; use those that it "
                "was trained with",
            )
        return {"position.position_embedding": resample(parts.positions, parts.grid, encoder.grid)}
    there = position.at_grid(parts.grid)
    everywhere = torch.arange(parts.grid.num_patches)[None]
    added = there.add(torch.zeros(1, parts.grid.num_patches, encoder.size.embed_dim), everywhere)[0]
    rotation = there.rotation(everywhere)
    same = _close(parts.positions, added if added.any() else None)
    same = same and (rotation is None) == (parts.rotation is None)
    if rotation is not None and parts.rotation is not None:
        same = same and all(_close(a, b[0, 0]) for a, b in zip(parts.rotation, rotation, strict=True))
    if not same:
        raise ConfigError(
            Key("encoder.position", ""),
            f" differs from the positions that the encoder of {source} was trained with; use encoder.position=learned "
            "for positions that are added, or those of its pipeline",
        )
    return {name: tensor for name, tensor in encoder.state_dict().items() if name.startswith("position.")}


def _close(first: Tensor | None, second: Tensor | None) -> bool:
    if first is None or second is None:
        return first is second
    return first.shape == second.shape and torch.allclose(first, second, atol=_TOLERANCE)


def _refuse_other_tensors(source: str, state: Mapping[str, Tensor], encoder: VisionTransformer) -> None:
    """Raises:
    ConfigError: tensors are missing or too many, all listed.
    """
    expected = encoder.state_dict()
    missing, unknown = (
        [name for name in expected if name not in state],
        [name for name in state if name not in expected],
    )
    if missing or unknown:
        told = [
            f"{len(names)} {what} ({', '.join(names[:4])})"
            for names, what in ((missing, "missing"), (unknown, "unknown"))
            if names
        ]
        raise ConfigError(
            Key(_KEY, ""),
            f": the weights of {source} are not those of this encoder: {', '.join(told)}; encoder.layer_scale must be "
            "as it was there",
        )


def _digest(parts: EncoderParts) -> str:
    """SHA-256 of the tensors, so that a result says what it began with."""
    sha = hashlib.sha256()
    tensors = {**parts.weights, **({} if parts.positions is None else {"positions": parts.positions})}
    for name in sorted(tensors):
        sha.update(name.encode())
        sha.update(tensors[name].contiguous().numpy().data)
    return sha.hexdigest()
