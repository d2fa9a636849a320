"""Floating-point operations of the matrix products of a training step, counted in closed form for a batch.

A multiply-add counts as 2, and the backward pass as two forward passes. That is exact except for the context encoder's
patch embedding, whose input wants no gradient: there one forward pass less is computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from jepa_lab.maskers.base import Masks
from jepa_lab.models.ijepa import IJepa
from jepa_lab.models.packing import Packing
from jepa_lab.models.predictor import Predictor
from jepa_lab.models.sequences import EqualLengths
from jepa_lab.models.sizes import ModelSize


@dataclass(frozen=True)
class Work:
    """What a transformer computes.

    Attributes:
        tokens: in all blocks. read: of them after the last attention.
        scores: pairs of a query and a key.
    """

    tokens: float
    scores: float
    read: float

    @classmethod
    def useful(cls, lengths: Tensor) -> Work:
        """Every sequence at its own length, all of its tokens to the end."""
        tokens = int(lengths.sum())
        return cls(tokens, int(lengths.square().sum()), tokens)


@dataclass(frozen=True)
class LevelWork:
    """What is computed to predict one level.

    Attributes:
        context: tokens of the context views. pairs: of the predictor. targets: its mask tokens.
    """

    context: float
    pairs: Work
    targets: float


def transformer_flops(size: ModelSize, work: Work) -> float:
    """Operations of a forward pass.

    A block takes 8 D^2 for each token to make query, key, value and output, 4 D for each score, and 4 r D^2 for each
    token of the MLP. The last block does nothing for tokens that are not read but to let others attend to them.
    """
    width, hidden = size.embed_dim, int(size.embed_dim * size.mlp_ratio)
    mlp = 4 * width * hidden
    unread = (work.tokens - work.read) * (2 * width**2 + mlp)
    return size.depth * (work.tokens * (8 * width**2 + mlp) + work.scores * 4 * width) - unread


def useful_flops(model: IJepa, masks: Masks) -> float:
    """Operations of a step on a batch with every sequence at its own length, whether its tokens are read or not.

    Where the target encoder sees one block at a time, blocks count at the average length of the batch.
    """
    lengths = float(masks.target.counts().double().mean())
    count, length = _target_sequences(model, masks, lengths)
    of_targets = Work(count * length, count * length**2, count * length)
    of_levels = model.hierarchy.masks(masks)
    contexts = [each.context.counts().flatten() for each in of_levels]
    levels = []
    for each, context in zip(of_levels, contexts, strict=True):
        targets = each.target.counts().unsqueeze(1).expand(-1, each.context.shape[1], -1)  # [B, E, M]
        pairs = each.context.counts().unsqueeze(2) + targets
        levels.append(LevelWork(int(context.sum()), Work.useful(pairs), int(targets.sum())))
    return _step_flops(model, masks, of_targets, Work.useful(contexts[0]), levels)


def computed_flops(model: IJepa, masks: Masks, packings: Sequence[Packing], *, aligned: bool) -> float:
    """Operations of a step on a batch that is packed like this, padding included.

    Args:
        packings: of every level, see `IJepa.pack`.
        aligned: whether attention fills the vectors of a CPU up with keys, see `align_keys`.
    """
    count, length = _target_sequences(model, masks, masks.target.shape[-1])
    tokens = count * length
    whole = EqualLengths(((round(count), round(length)),))  # of one shape, padding included
    read = packings[0].target_rows.read
    finished = len(read) if read is not None and _reads_targets_alone(model) else tokens
    of_targets = Work(tokens, whole.scores(aligned) if tokens else 0, finished)
    context = packings[0].context
    of_context = Work(len(context.images), context.sequences.scores(aligned), len(context.images))
    levels = [_packed_work(packing, aligned) for packing in packings]
    return _step_flops(model, masks, of_targets, of_context, levels)


def _packed_work(packing: Packing, aligned: bool) -> LevelWork:
    pairs, targets = packing.pairs, len(packing.pairs.read.index)
    work = Work(len(pairs.merge.index), pairs.sequences.scores(aligned), targets)
    return LevelWork(len(packing.context.images), work, targets)


def _target_sequences(model: IJepa, masks: Masks, block_patches: float) -> tuple[float, float]:
    """Sequences that the target encoder computes for a batch, and their length."""
    num_patches = model.context_encoder.grid.num_patches
    count, length = model.target.encoder_sequences(num_patches, masks.target.shape[1], block_patches)
    return len(masks) * count, length


def _reads_targets_alone(model: IJepa) -> bool:
    """Coarser levels are made of every patch."""
    return model.target.reads_targets_alone and len(_predictors(model)) == 1


def _predictors(model: IJepa) -> list[Predictor]:
    """The predictor of each level; one that levels share predicts them one after the other."""
    return [predictor for predictor, _ in model.hierarchy.predictors_beside(model.predictor)]


def _step_flops(model: IJepa, masks: Masks, target: Work, context: Work, levels: Sequence[LevelWork]) -> float:
    encoder = model.context_encoder
    size, weight = encoder.size, encoder.patch_embed.proj.weight
    embed = 2 * weight.numel()  # for each patch
    total = transformer_flops(size, target) + embed * target.tokens
    total += 3 * (transformer_flops(size, context) + embed * context.tokens)
    for predictor, level in zip(_predictors(model), levels, strict=True):
        total += 3 * _predictor_flops(predictor, level)
    cells = sum(model.hierarchy.flops_above())  # of an image or a view; the target side goes forward alone
    return total + cells * len(masks) * (1 + 3 * masks.context.shape[1])


def _predictor_flops(predictor: Predictor, work: LevelWork) -> float:
    into, out = 2 * predictor.embed.weight.numel(), 2 * predictor.proj.weight.numel()
    return into * work.context + transformer_flops(predictor.size, work.pairs) + out * work.targets
