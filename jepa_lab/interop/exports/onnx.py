"""An ONNX graph from pixels to features, normalisation included."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch
from torch import Tensor

from jepa_lab.interop.exports.base import EXPORT_FORMATS, ExportFormat, Usage
from jepa_lab.weights.encoder_parts import EncoderParts
from jepa_lab.weights.plain import plain_encoder_of

_LARGEST_FILE = 1 << 30
"""Bytes of weights inside the graph's own file, which protobuf bounds by 2 GiB; more go into a file beside it."""
_CODE = """\
import numpy as np
import onnxruntime
from PIL import Image, ImageOps

image = Image.open("photo.jpg").convert("MODE")
image = ImageOps.fit(image, (IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BILINEAR)
pixels = np.asarray(image, np.float32).reshape(IMAGE_SIZE, IMAGE_SIZE, -1).transpose(2, 0, 1)[None] / 255
session = onnxruntime.InferenceSession("FOLDER/model.onnx")
features, patches = session.run(["features", "patch_features"], {"pixels": pixels})  # [1, D] and [1, N, D]
"""


@EXPORT_FORMATS.register(
    "onnx",
    summary="An ONNX graph from pixels in [0, 1] to pooled and patch features, for any number of images.",
    source="torch.onnx",
)
class OnnxFormat(ExportFormat):
    """All our encoders."""

    packages = ("onnx", "onnxscript", "onnxruntime")

    def write(self, parts: EncoderParts, folder: Path) -> None:
        encoder = plain_encoder_of(parts)
        pixels = torch.zeros(2, parts.num_channels, *parts.image_size)
        size = sum(tensor.nbytes for tensor in encoder.state_dict().values())
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's own, about its inner parts
            torch.onnx.export(
                encoder,
                (pixels,),
                folder / "model.onnx",
                input_names=["pixels"],
                output_names=["features", "patch_features"],
                dynamic_shapes={"pixels": {0: torch.export.Dim("batch")}},
                external_data=size > _LARGEST_FILE,
                dynamo=True,
                verbose=False,
            )

    def features(self, folder: Path, images: Tensor) -> Tensor:
        import onnxruntime

        session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
        (patches,) = session.run(["patch_features"], {"pixels": (images / 255).numpy()})
        return torch.from_numpy(patches)

    def usage(self) -> Usage:
        return Usage("onnx", _CODE)
