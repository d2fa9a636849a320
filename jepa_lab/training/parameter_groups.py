"""Which learning rate and which weight decay every trainable parameter gets."""

from __future__ import annotations

from enum import Enum
from typing import Any

from torch import nn

from jepa_lab.models.ijepa import IJepa
from jepa_lab.models.vit import VisionTransformer
from jepa_lab.positions.base import PositionEmbedding
from jepa_lab.training.schedules import OptimizerSettings


class Decay(Enum):
    """Whose weight decay a parameter follows."""

    ENCODER = "encoder"
    PREDICTOR = "predictor"
    NONE = "none"


def group_parameters(model: IJepa, settings: OptimizerSettings) -> list[dict[str, Any]]:
    """The trainable parameters by learning-rate scale and weight decay, as AdamW takes them.

    Returns:
        Groups with `params`, `lr_scale` and `decay`, in the order of their first parameters.
    """
    scales = learning_rate_scales(model.context_encoder, settings)
    decays = parameter_decays(model, settings)
    groups: dict[tuple[float, Decay], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((scales.get(parameter, 1.0), decays[name]), []).append(parameter)
    return [{"params": params, "lr_scale": scale, "decay": decay} for (scale, decay), params in groups.items()]


def learning_rate_scales(encoder: nn.Module, settings: OptimizerSettings) -> dict[nn.Parameter, float]:
    """The factor on the learning rate of each parameter that has one: layer_decay ** (depth - layer).

    Patch embedding and positions are layer 0, block i (from 0) is layer i + 1, so the last block learns at the full
    rate; so do the final norm and whatever else is not in here. Without `layer_decay_embedding` layer 0 does, too, as
    in the Nexus guide to I-JEPA.
    Source: Clark et al. 2020, arXiv:2003.10555, sec. 3.2; layer numbers as in the fine-tuning of BEiT (Bao et al. 2022,
    arXiv:2106.08254) and MAE. Differs: those count a head above the last block, so that every factor of theirs
    is smaller by one more layer_decay; pretraining has no such head.
    """
    scales = {}
    for transformer in encoder.modules():
        if isinstance(transformer, VisionTransformer):
            layers = [nn.ModuleList([transformer.patch_embed, transformer.position]), *transformer.blocks]
            depth = len(transformer.blocks)
            for layer, module in enumerate(layers):
                if layer > 0 or settings.layer_decay_embedding:
                    scales.update(dict.fromkeys(module.parameters(), settings.layer_decay ** (depth - layer)))
    return scales


def parameter_decays(model: IJepa, settings: OptimizerSettings) -> dict[str, Decay]:
    """The weight decay of each trainable parameter, by name.

    Mask token, learned positions, and anything named bias or with one dimension, such as norms and layer scales, are
    decayed by choice. What belongs to no predictor counts as the encoder's.
    Source: the released code's groups, which know one weight decay.
    """
    learned = {
        parameter
        for module in model.modules()
        if isinstance(module, PositionEmbedding)
        for parameter in module.parameters()
    }
    of_predictor = set(model.predictor_parameters())
    decays = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        decayed = settings.decay_biases_and_norms or (not name.endswith("bias") and parameter.ndim > 1)
        if name.endswith("mask_token"):
            decayed = settings.decay_mask_token
        if parameter in learned:
            decayed = settings.decay_positions
        whose = Decay.PREDICTOR if parameter in of_predictor else Decay.ENCODER
        decays[name] = whose if decayed else Decay.NONE
    return decays
