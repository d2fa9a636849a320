"""transformers' IJepaModel, as a folder for `AutoModel.from_pretrained(FOLDER)`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jepa_lab.interop.exports.base import EXPORT_FORMATS, ROTARY, ExportFormat, Usage
from jepa_lab.weights.encoder_parts import EncoderParts

_QKV = re.compile(r"blocks\.(\d+)\.attn\.qkv\.(weight|bias)")
_RENAMED = (
    (r"^patch_embed\.proj", "embeddings.patch_embeddings.projection"),
    (r"^blocks", "layers"),
    (r"norm1", "layernorm_before"),
    (r"norm2", "layernorm_after"),
    (r"attn\.proj", "attention.o_proj"),
    (r"^norm", "layernorm"),
)
_CODE = """\
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel

model = AutoModel.from_pretrained("FOLDER").eval()
processor = AutoImageProcessor.from_pretrained("FOLDER")
with torch.no_grad():
    inputs = processor(Image.open("photo.jpg").convert("MODE"), return_tensors="pt")
    patches = model(**inputs).last_hidden_state  # [1, N, D]
    features = patches.mean(dim=1)  # [1, D]
"""


@EXPORT_FORMATS.register(
    "transformers",
    summary="A folder that transformers' AutoModel.from_pretrained(FOLDER) loads as IJepaModel.",
    source="transformers' IJepaModel",
)
class TransformersFormat(ExportFormat):
    """Encoders without rotary positions and without layer scale."""

    packages = ("transformers",)

    def objection(self, parts: EncoderParts) -> str | None:
        if parts.rotation is not None:
            return ROTARY.format(library="transformers' IJepaModel")
        if parts.has_layer_scale:
            return "the encoder has layer scale, which transformers' IJepaModel has no place for; export it to timm"
        height, width = parts.image_size
        if height != width:
            return f"transformers' IJepaModel takes square images, not {height}x{width}; export it to timm"
        return None

    def write(self, parts: EncoderParts, folder: Path) -> None:
        from transformers import BitImageProcessor, IJepaConfig, IJepaModel

        model = IJepaModel(IJepaConfig(**_config(parts)))
        model.load_state_dict(_weights(parts))
        model.save_pretrained(folder)
        side = parts.image_size[0]
        processor = BitImageProcessor(
            size={"shortest_edge": round(side / parts.crop_fraction)},
            crop_size={"height": side, "width": side},
            resample=2,  # bilinear
            image_mean=parts.mean.tolist(),
            image_std=parts.std.tolist(),
            do_convert_rgb=parts.num_channels == 3,
        )
        processor.save_pretrained(folder)

    def features(self, folder: Path, images: Tensor) -> Tensor:
        from transformers import AutoImageProcessor, AutoModel

        processor = AutoImageProcessor.from_pretrained(folder, local_files_only=True)
        model = AutoModel.from_pretrained(folder, local_files_only=True).eval()
        inputs = processor(list(images), return_tensors="pt", input_data_format="channels_first")
        with torch.no_grad():
            found: Tensor = model(inputs["pixel_values"]).last_hidden_state
        return found

    def usage(self) -> Usage:
        return Usage("transformers", _CODE)


def _weights(parts: EncoderParts) -> dict[str, Tensor]:
    """Their names; `qkv` in three."""
    weights = {"embeddings.position_embeddings": parts.position_table[None]}
    for name, tensor in parts.weights.items():
        together = _QKV.fullmatch(name)
        if together is not None:
            for part, third in zip("qkv", tensor.chunk(3), strict=True):
                weights[f"layers.{together[1]}.attention.{part}_proj.{together[2]}"] = third
            continue
        for pattern, theirs in _RENAMED:
            name = re.sub(pattern, theirs, name)  # noqa: PLW2901
        weights[name] = tensor
    return weights


def _config(parts: EncoderParts) -> dict[str, Any]:
    return {
        "hidden_size": parts.size.embed_dim,
        "num_hidden_layers": parts.size.depth,
        "num_attention_heads": parts.size.num_heads,
        "intermediate_size": parts.hidden_dim,
        "image_size": parts.image_size[0],
        "patch_size": parts.patch_size,
        "num_channels": parts.num_channels,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
        "qkv_bias": True,
    }
