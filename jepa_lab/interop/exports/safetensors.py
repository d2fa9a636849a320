"""Weights and positions in one safetensors file, with the few lines of PyTorch that read them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import torch
from torch import Tensor

from jepa_lab.interop.exports.base import EXPORT_FORMATS, ExportFormat, Usage
from jepa_lab.tracking.atomic import write_json_atomically, write_text_atomically
from jepa_lab.training.tensor_file import write_tensors
from jepa_lab.weights import plain_encoder
from jepa_lab.weights.encoder_parts import EncoderParts
from jepa_lab.weights.plain import describe, plain_encoder_of

_CODE = """\
import sys

import torch
from PIL import Image
from torchvision.transforms.functional import center_crop, pil_to_tensor, resize

sys.path.insert(0, "FOLDER")
from encoder import load_encoder  # a short file beside the weights; it needs torch and safetensors alone

model = load_encoder("FOLDER")
image = pil_to_tensor(Image.open("photo.jpg").convert("MODE"))
image = center_crop(resize(image, SHORTER_SIDE, antialias=True), IMAGE_SIZE)
with torch.no_grad():
    features, patches = model(image[None] / 255)  # [1, D] and [1, N, D]
"""


@EXPORT_FORMATS.register(
    "safetensors",
    summary="Weights and positions in one safetensors file, and a file of plain PyTorch that reads them.",
    source="jepa-lab",
)
class SafetensorsFormat(ExportFormat):
    """All our encoders."""

    def write(self, parts: EncoderParts, folder: Path) -> None:
        encoder = plain_encoder_of(parts)
        write_tensors(folder / "model.safetensors", encoder.state_dict(), {"format": "pt"})
        write_json_atomically(folder / "encoder.json", describe(parts))
        source = Path(plain_encoder.__file__).read_text(encoding="utf-8")
        write_text_atomically(folder / "encoder.py", source)

    def features(self, folder: Path, images: Tensor) -> Tensor:
        spec = importlib.util.spec_from_file_location("_exported_encoder", folder / "encoder.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        with torch.no_grad():
            patches: Tensor = module.load_encoder(folder)(images / 255)[1]
        return patches

    def usage(self) -> Usage:
        return Usage("pytorch", _CODE)
