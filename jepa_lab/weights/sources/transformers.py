"""A folder that transformers wrote: an I-JEPA or ViT model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jepa_lab.errors import ConfigError
from jepa_lab.weights.foreign_weights import ForeignEncoder, Origin, assemble
from jepa_lab.weights.sources.base import WEIGHT_SOURCES, SourceContext, WeightSource
from jepa_lab.weights.sources.timm import config_of, weights_file
from jepa_lab.weights.state_files import read_tensor_file, tensors_of

_TYPES = ("ijepa", "vit")
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_WHOLE = re.compile(r"^(ijepa|vit)\.")
_NO_ENCODER = ("classifier.", "pooler.", "embeddings.mask_token", "decoder.")
# The names of transformers 5 and, after them, those of the files on its hub.
_RENAMED = (
    (r"^embeddings\.patch_embeddings\.projection", "patch_embed.proj"),
    (r"^embeddings\.position_embeddings", "pos_embed"),
    (r"^embeddings\.cls_token", "cls_token"),
    (r"^(encoder\.layer|layers)\.", "blocks."),
    (r"attention\.(o_proj|output\.dense)", "attn.proj"),
    (r"attention\.(attention\.)?(q_proj|query)", "attn.q"),
    (r"attention\.(attention\.)?(k_proj|key)", "attn.k"),
    (r"attention\.(attention\.)?(v_proj|value)", "attn.v"),
    (r"layernorm_before", "norm1"),
    (r"layernorm_after", "norm2"),
    (r"(mlp\.fc1|intermediate\.dense)", "mlp.fc1"),
    (r"(mlp\.fc2|\boutput\.dense)", "mlp.fc2"),
    (r"^layernorm", "norm"),
)


@WEIGHT_SOURCES.register(
    "transformers", summary="A folder of transformers with an I-JEPA or ViT model.", source="transformers"
)
class TransformersSource(WeightSource):
    """IJepaModel, ViTModel, and the models with heads around them."""

    def recognises(self, text: str, context: SourceContext) -> bool:
        return "model_type" in config_of(Path(text))

    def load(self, text: str, context: SourceContext) -> ForeignEncoder:
        folder = Path(text)
        config = config_of(folder)
        _check(text, config)
        file = weights_file(folder, _WEIGHTS)
        state = tensors_of(read_tensor_file(file), "state_dict", file)
        state = {_WHOLE.sub("", name): tensor for name, tensor in state.items()}
        left_out = [name for name in state if name.startswith(_NO_ENCODER)]
        kept = {name: tensor for name, tensor in state.items() if name not in left_out}
        return assemble(
            _with_joined_qkv({_renamed(name): kept[name] for name in kept}), left_out, _origin(text, config)
        )


def _check(text: str, config: Mapping[str, Any]) -> None:
    kind, activation = config["model_type"], config.get("hidden_act", "gelu")
    if kind not in _TYPES:
        raise ConfigError(f"{text} is a {kind} model; only {' and '.join(_TYPES)} are read")
    if activation != "gelu":
        raise ConfigError(f"{text} computes {activation} where encoders here compute gelu; it cannot be read")


def _origin(text: str, config: Mapping[str, Any]) -> Origin:
    size = config.get("image_size", 224)
    height, width = (size, size) if isinstance(size, int) else size
    processor = _processor(Path(text))
    mean, std = processor.get("image_mean"), processor.get("image_std")
    return Origin(
        source=text,
        num_heads=int(config.get("num_attention_heads", 12)),
        image_size=(height, width),
        layer_norm_eps=float(config.get("layer_norm_eps", 1e-12)),
        mean=tuple(mean) if mean else None,
        std=tuple(std) if std else None,
    )


def _processor(folder: Path) -> dict[str, Any]:
    for name in ("preprocessor_config.json", "processor_config.json"):
        content = config_of(folder, name)
        if content:
            inner = content.get("image_processor", content)
            return inner if isinstance(inner, dict) else {}
    return {}


def _renamed(name: str) -> str:
    for pattern, ours in _RENAMED:
        name = re.sub(pattern, ours, name)
    return name


def _with_joined_qkv(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Queries, keys and values in one tensor, where all three are there."""
    joined = dict(state)
    for name in state:
        found = re.fullmatch(r"(blocks\.\d+\.attn\.)q\.(weight|bias)", name)
        if found is None:
            continue
        three = [f"{found[1]}{part}.{found[2]}" for part in "qkv"]
        if all(each in state for each in three):
            joined[f"{found[1]}qkv.{found[2]}"] = torch.cat([joined.pop(each) for each in three])
    return joined
