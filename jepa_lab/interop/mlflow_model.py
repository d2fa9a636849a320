"""What `mlflow.pyfunc.load_model` returns for a logged model: the probed encoder's features of images.

The file MLmodel names this module, and MLflow calls `_load_pyfunc`. MLflow itself is not imported here. Nothing is
unpickled: the weights are safetensors, and the configuration is YAML, whose `plugins` are imported as for a run.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from jepa_lab.build import build_model
from jepa_lab.config.loading import load_resolved
from jepa_lab.config.pipeline import Pipeline
from jepa_lab.data.centre_squares import cut_out
from jepa_lab.data.images import Pictures
from jepa_lab.errors import DataError, RunFolderError
from jepa_lab.evaluation import encoder_record, extraction_size, probed_encoder
from jepa_lab.probes.features import extract_features
from jepa_lab.training.devices import inference_device
from jepa_lab.training.tensor_file import parse_tensors

if TYPE_CHECKING:
    import pandas as pd

DEVICE_VARIABLE = "MLFLOW_DEFAULT_PREDICTION_DEVICE"


class EncoderFeatures:
    """The encoder that the run's probe measured, and how its images were normalised.

    Args:
        mean: [C] of pixels in [0, 1]. std: [C].
    """

    def __init__(self, pipeline: Pipeline, encoder: nn.Module, mean: Tensor, std: Tensor, device: torch.device) -> None:
        self.pipeline, self.encoder, self.mean, self.std, self.device = pipeline, encoder, mean, std, device
        self.input_shape = tuple(encoder_record(pipeline, len(mean))["input_shape"])

    def predict(self, model_input: np.ndarray | pd.DataFrame, params: dict[str, Any] | None = None) -> np.ndarray:
        """Features of images, as the run's probe got them: averaged over patches, of `probe.layers` and `probe.levels`.

        Args:
            model_input: [n, H, W, C] integers from 0 to 255; they are divided by 255 and normalised by `channel_mean`
                and `channel_std` here. Images of the size that the encoder was probed at are taken as they are; of
                others the square in the middle is cut out, resized as the probe's pictures were. [n, C, H, W] is taken,
                too, at that size. Images of several sizes are an array of objects, one array per image. Or a DataFrame
                with a line for each image: one column of such arrays (or of their pixels, channels first), or a column
                for each pixel.
            params: MLflow's; there are none.
        Returns:
            [n, num_features] float32.
        Raises:
            DataError: these are no such images.
        """
        given = model_input if isinstance(model_input, np.ndarray) else _as_array(model_input)
        if given.dtype == object and given.ndim == 1:
            pixels = torch.cat([self._squares(np.asarray(image)[None]) for image in given]) if len(given) else None
        else:
            pixels = self._squares(given) if len(given) else None
        if pixels is None:
            return np.zeros((0, encoder_record(self.pipeline, len(self.mean))["num_features"]), np.float32)
        batch_size = extraction_size(self.pipeline, self.encoder, self.device)
        arguments = (self.mean, self.std, self.pipeline.probe.num_layers, batch_size, self.device)
        return extract_features(self.encoder, pixels, *arguments).numpy()

    def _squares(self, images: np.ndarray) -> Tensor:
        """The images as the encoder sees them, [n, C, H, W] uint8.

        Raises:
            DataError: another shape, or other values.
        """
        channels, side, _ = self.input_shape
        wanted = f"images must be [n, height, width, {channels}] integers from 0 to 255"
        if images.ndim == 2 and images.shape[1] == np.prod(self.input_shape):
            images = images.reshape(-1, *self.input_shape)
        if images.dtype.kind not in "ui":
            raise DataError(f"{wanted}, got {images.dtype}; give the pixels as they are, they are normalised here")
        if images.shape[1:] != self.input_shape:  # channels last
            if images.ndim != 4 or images.shape[3] != channels or 0 in images.shape[1:3]:
                raise DataError(
                    f"{wanted}, or [n, {channels}, {side}, {side}], got the shape {images.shape}; put the channels last"
                )
            images = np.moveaxis(images, 3, 1)
        if images.size and not (images.min() >= 0 and images.max() <= 255):
            raise DataError(f"{wanted}, got values from {images.min()} to {images.max()}")
        pixels = torch.from_numpy(np.ascontiguousarray(images, np.uint8))
        if tuple(images.shape[1:]) == self.input_shape:
            return pixels
        return cut_out(Pictures(pixels, None), side, self.pipeline.probe.crop_fraction)


def _load_pyfunc(data_path: str) -> EncoderFeatures:
    """Called by MLflow with the folder of the model's files.

    Raises:
        ConfigError: the configuration or the device cannot be used here. RunFolderError: the weights cannot.
    """
    folder = Path(data_path)
    config, weights = folder / "config.yaml", folder / "model.safetensors"
    pipeline = load_resolved(config.read_text(encoding="utf-8"), str(config))
    tensors, metadata = parse_tensors(weights.read_bytes(), weights)
    if "channel_mean" not in metadata or "channel_std" not in metadata:
        raise RunFolderError(
            f"{weights} does not say by which channel_mean and channel_std its images were normalised, because an "
            "older jepa-lab wrote it; probe it with `jepa-lab probe`, which computes them from the data"
        )
    mean, std = (torch.tensor(json.loads(metadata[key])) for key in ("channel_mean", "channel_std"))
    model = build_model(pipeline, len(mean))
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:  # names or shapes that are not those of this configuration
        raise RunFolderError(f"{weights} does not fit {config} ({str(error).splitlines()[0]})") from error
    device = inference_device(os.environ.get(DEVICE_VARIABLE) or None, DEVICE_VARIABLE)
    return EncoderFeatures(pipeline, probed_encoder(model, pipeline).to(device), mean, std, device)


def _as_array(frame: pd.DataFrame) -> np.ndarray:
    """The images of a DataFrame: [n, ...], or [n] objects where they have several shapes."""
    if len(frame.columns) != 1:
        return frame.to_numpy()
    cells = [np.asarray(cell) for cell in frame.iloc[:, 0]]
    if len({cell.shape for cell in cells}) <= 1:
        return np.stack(cells) if cells else np.zeros((0, 0), np.uint8)
    held = np.empty(len(cells), dtype=object)
    held[:] = cells
    return held
