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
from jepa_lab.errors import ConfigError, DataError, RunFolderError
from jepa_lab.evaluation import encoder_record, extraction_size, probed_encoder
from jepa_lab.probes.features import extract_features
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
            model_input: [n, C, H, W] integers from 0 to 255, of the size that the encoder was probed at; they are
                divided by 255 and normalised by `channel_mean` and `channel_std` here. Or a DataFrame with a line for
                each image: one column of such arrays (or of their pixels in that order), or a column for each pixel.
            params: MLflow's; there are none.
        Returns:
            [n, num_features] float32.
        Raises:
            DataError: these are no such images.
        """
        pixels = self._checked(model_input if isinstance(model_input, np.ndarray) else _as_array(model_input))
        if not len(pixels):
            return np.zeros((0, encoder_record(self.pipeline, len(self.mean))["num_features"]), np.float32)
        settings = self.pipeline.probe
        batch_size = extraction_size(self.pipeline, self.encoder, self.device)
        arguments = (self.mean, self.std, settings.num_layers, batch_size, self.device)
        features = extract_features(self.encoder, torch.from_numpy(pixels), *arguments)
        return features.numpy()

    def _checked(self, pixels: np.ndarray) -> np.ndarray:
        """The images [n, C, H, W] uint8.

        Raises:
            DataError: another shape, or other values.
        """
        channels, height, width = self.input_shape
        wanted = f"images must be [n, {channels}, {height}, {width}] integers from 0 to 255"
        if pixels.ndim == 2 and pixels.shape[1] == np.prod(self.input_shape):
            pixels = pixels.reshape(-1, *self.input_shape)
        if pixels.shape[1:] != self.input_shape:
            raise DataError(f"{wanted}, got the shape {pixels.shape}; resize them, channels first")
        if pixels.dtype.kind not in "ui":
            raise DataError(f"{wanted}, got {pixels.dtype}; give the pixels as they are, they are normalised here")
        if pixels.size and not (pixels.min() >= 0 and pixels.max() <= 255):
            raise DataError(f"{wanted}, got values from {pixels.min()} to {pixels.max()}")
        return np.ascontiguousarray(pixels, np.uint8)


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
    device = _device()
    return EncoderFeatures(pipeline, probed_encoder(model, pipeline).to(device), mean, std, device)


def _device() -> torch.device:
    """That of MLflow's variable for predictions, else CUDA where there is one, as MLflow's own loader chooses.

    Raises:
        ConfigError: the variable names none that is here.
    """
    named = os.environ.get(DEVICE_VARIABLE)
    if not named:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.zeros(0, device=named).device
    except (RuntimeError, AssertionError) as error:  # an unknown name, or PyTorch without that device
        raise ConfigError(f"{DEVICE_VARIABLE}={named}: no such device here ({error}); use cpu or cuda") from error


def _as_array(frame: pd.DataFrame) -> np.ndarray:
    """The images of a DataFrame, [n, ...].

    Raises:
        DataError: cells of unequal shapes.
    """
    if len(frame.columns) != 1:
        return frame.to_numpy()
    try:
        return np.stack([np.asarray(cell) for cell in frame.iloc[:, 0]])
    except ValueError as error:
        raise DataError(f"the images of a DataFrame must all have one shape ({error})") from error
