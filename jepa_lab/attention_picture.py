"""`jepa-lab attention`: what the encoder of a run attends to, on validation images of the run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from jepa_lab.build import build_model, prepare_data
from jepa_lab.config.loading import load_resolved
from jepa_lab.data.images import to_tensor
from jepa_lab.data.resident import normalize, to_float
from jepa_lab.data.survey import load_surveys
from jepa_lab.errors import ConfigError
from jepa_lab.figures.attention import AttentionView, draw_attention
from jepa_lab.models.vit import VisionTransformer
from jepa_lab.randomness import build_generator
from jepa_lab.reprobe import divided_as_trained, refuse_changed_data
from jepa_lab.tracking.run_folder import RunFolder
from jepa_lab.training.checkpoint import CheckpointStore
from jepa_lab.training.devices import memory_errors


@dataclass(frozen=True)
class AttentionQuestion:
    """What to draw of a run.

    Attributes:
        step: of the checkpoint; None for the last one.
        encoder: which of the two.
        layer: number of the block, from 1; None for the last one.
        images: how many validation images.
        query: row and column (from 0) of the patch whose attention is drawn; None for the mean over all patches.
    """

    step: int | None = None
    encoder: Literal["target", "context"] = "target"
    layer: int | None = None
    images: int = 4
    query: tuple[int, int] | None = None


def draw_run_attention(folder: RunFolder, question: AttentionQuestion, out: Path) -> None:
    """Write a PNG of the attention of one block over whole validation images, for each head and on average.

    Pictures of this kind usually show what a class token attends to. Here is none: what is drawn is how much
    attention each patch receives, on average over all patches of the image as queries; or, with a `query`, what that
    one patch attends to. Computed on the CPU in single precision, wherever the run was trained.

    Raises:
        ConfigError: no such block or patch. RunFolderError: no such checkpoint, or the images have changed.
        DataError: the images are missing.
    """
    pipeline = load_resolved(folder.config.read_text(encoding="utf-8"), str(folder.config))
    pipeline = divided_as_trained(pipeline, folder)
    checkpoint = CheckpointStore(folder.checkpoints).load(question.step)
    known, _ = load_surveys(folder.path / "data.json")
    with memory_errors(pipeline.training):
        data = prepare_data(pipeline, known=known.get("data"))
        refuse_changed_data(folder, data.digest)
        model = build_model(pipeline, data.train.images.shape[1])
        model.load_state_dict(checkpoint.model)
        encoder = model.target_encoder if question.encoder == "target" else model.context_encoder
        layer = _layer(encoder, question.layer)
        view = _view(encoder, question, f"{folder.path.name}, step {checkpoint.run.step}", layer)
        order = torch.randperm(
            len(data.validation), generator=build_generator(pipeline.data.split_seed, "attention picture")
        )
        images = to_tensor(data.validation.images[order[: question.images]])
        weights = _weights(encoder, normalize(to_float(images), data.mean, data.std), layer)
    draw_attention(images, weights, view, out)


def _weights(encoder: VisionTransformer, images: Tensor, layer: int) -> Tensor:
    """[B, H, N, N], one image at a time: the weights of many would not fit where the patches are many."""
    return torch.cat([encoder.attention_weights(image[None], layer) for image in images])


def _layer(encoder: VisionTransformer, asked: int | None) -> int:
    depth = encoder.size.depth
    if asked is not None and not 1 <= asked <= depth:
        raise ConfigError(f"--layer must be one of the encoder's blocks, 1 to {depth}, got {asked}")
    return depth if asked is None else asked


def _view(encoder: VisionTransformer, question: AttentionQuestion, run: str, layer: int) -> AttentionView:
    grid, query = encoder.grid, question.query
    if query is not None and not (0 <= query[0] < grid.height and 0 <= query[1] < grid.width):
        raise ConfigError(
            f"--query must be the row and column of a patch of the {grid} grid, counted from 0, got "
            f"{query[0]} {query[1]}"
        )
    what = "attention that each patch receives" if query is None else f"attention of the marked patch {query}"
    block = f"block {layer} of {encoder.size.depth} of the {question.encoder} encoder"
    return AttentionView(grid, query, f"{what}\n{block}; {run}")
