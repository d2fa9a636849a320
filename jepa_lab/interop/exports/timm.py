"""timm's VisionTransformer, as a folder for `timm.create_model("local-dir:FOLDER", pretrained=True)`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from jepa_lab.interop.exports.base import EXPORT_FORMATS, ROTARY, ExportFormat, Usage
from jepa_lab.tracking.atomic import write_json_atomically
from jepa_lab.training.tensor_file import write_tensors
from jepa_lab.weights.encoder_parts import EncoderParts

_RENAMED = {".scale1.": ".ls1.", ".scale2.": ".ls2."}
_CODE = """\
import timm
import torch
from PIL import Image

model = timm.create_model("local-dir:FOLDER", pretrained=True).eval()
preprocess = timm.data.create_transform(**timm.data.resolve_model_data_config(model))
with torch.no_grad():
    image = preprocess(Image.open("photo.jpg").convert("MODE"))[None]
    features = model(image)  # [1, D]
    patches = model.forward_features(image)  # [1, N, D]
"""


@EXPORT_FORMATS.register(
    "timm",
    summary="A folder that timm.create_model('local-dir:FOLDER', pretrained=True) loads.",
    source="timm's VisionTransformer without a class token",
)
class TimmFormat(ExportFormat):
    """All our encoders but those with rotary positions."""

    packages = ("timm",)

    def objection(self, parts: EncoderParts) -> str | None:
        return None if parts.rotation is None else ROTARY.format(library="timm's VisionTransformer")

    def write(self, parts: EncoderParts, folder: Path) -> None:
        write_tensors(folder / "model.safetensors", _weights(parts), {"format": "pt"})
        write_json_atomically(folder / "config.json", _config(parts))

    def features(self, folder: Path, images: Tensor) -> Tensor:
        import timm

        model: Any = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        config = timm.data.resolve_model_data_config(model)
        mean, std = (torch.tensor(config[key])[:, None, None] for key in ("mean", "std"))
        with torch.no_grad():
            found: Tensor = model.forward_features((images / 255 - mean) / std)
        return found

    def usage(self) -> Usage:
        return Usage("timm", _CODE)


def _weights(parts: EncoderParts) -> dict[str, Tensor]:
    weights = {"pos_embed": parts.position_table[None]}
    for name, tensor in parts.weights.items():
        for ours, theirs in _RENAMED.items():
            name = name.replace(ours, theirs)  # noqa: PLW2901
        weights[name] = tensor
    return weights


def _config(parts: EncoderParts) -> dict[str, Any]:
    """Content of config.json: any registered vision transformer will do, as `model_args` says all that differs."""
    height, width = parts.image_size
    size = parts.size
    return {
        "architecture": "vit_tiny_patch16_224",
        "num_classes": 0,
        "num_features": size.embed_dim,
        "global_pool": "avg",
        "model_args": {
            "img_size": [height, width],
            "patch_size": parts.patch_size,
            "in_chans": parts.num_channels,
            "embed_dim": size.embed_dim,
            "depth": size.depth,
            "num_heads": size.num_heads,
            "mlp_ratio": parts.hidden_dim / size.embed_dim,
            "class_token": False,
            "global_pool": "avg",
            "fc_norm": False,
            "init_values": 1.0 if parts.has_layer_scale else None,  # a model without them has no such weights
        },
        "pretrained_cfg": {
            "num_classes": 0,
            "input_size": [parts.num_channels, height, width],
            "fixed_input_size": True,
            "interpolation": "bilinear",
            "crop_pct": parts.crop_fraction,
            "crop_mode": "center",
            "mean": parts.mean.tolist(),
            "std": parts.std.tolist(),
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
    }
