"""A run of jepa-lab: the target encoder of its last checkpoint, at the size that it was probed at."""

from __future__ import annotations

import json
import os
from pathlib import Path

import torch

from jepa_lab.build import build_model
from jepa_lab.config.loading import load_resolved
from jepa_lab.errors import RunFolderError
from jepa_lab.evaluation import encoder_at_probed_grid
from jepa_lab.tracking.folder_names import named_folder
from jepa_lab.training.checkpoint import CheckpointStore
from jepa_lab.training.tensor_file import parse_tensors
from jepa_lab.weights.encoder_parts import take_apart
from jepa_lab.weights.foreign_weights import ForeignEncoder
from jepa_lab.weights.sources.base import WEIGHT_SOURCES, SourceContext, WeightSource, Which


@WEIGHT_SOURCES.register(
    "run",
    summary="A run of jepa-lab, by its name or folder: the target encoder of the last checkpoint.",
    source="jepa-lab",
)
class RunSource(WeightSource):
    """Its configuration says all about the encoder."""

    may_hold_both = True
    has_steps = True

    def recognises(self, text: str, context: SourceContext) -> bool:
        return _folder(text, context) is not None

    def load(self, text: str, context: SourceContext) -> ForeignEncoder:
        folder = _folder(text, context)
        assert folder is not None, "recognised"
        store = CheckpointStore(folder / "checkpoints")
        step = store.load(context.step).run.step  # verified
        weights = store.path(step) / "model.safetensors"
        return encoder_of_files(folder / "config.yaml", weights, text, context.encoder)


def _folder(text: str, context: SourceContext) -> Path | None:
    given = Path(text)
    if os.path.isfile(given / "run.json") and os.path.isfile(given / "config.yaml"):
        return given
    return named_folder(text, context.roots)


def encoder_of_files(config: Path, weights: Path, source: str, which: Which = "target") -> ForeignEncoder:
    """An encoder of a model file of ours, beside the configuration that it was trained with.

    Raises:
        RunFolderError: it does not say how images are normalised, or does not fit the configuration.
    """
    pipeline = load_resolved(config.read_text(encoding="utf-8"), str(config))
    tensors, metadata = parse_tensors(weights.read_bytes(), weights)
    if "channel_mean" not in metadata:
        raise RunFolderError(f"{weights} does not say how its images were normalised: an older jepa-lab wrote it")
    mean, std = (torch.tensor(json.loads(metadata[f"channel_{key}"])) for key in ("mean", "std"))
    model = build_model(pipeline, len(mean))
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise RunFolderError(f"{weights} does not fit {config} ({str(error).splitlines()[0]})") from error
    chosen = model.target_encoder if which == "target" else model.context_encoder
    encoder = encoder_at_probed_grid(chosen, pipeline)
    parts = take_apart(encoder, mean, std, pipeline.probe.crop_fraction)
    return ForeignEncoder(parts, source, (), knows_normalization=True)
