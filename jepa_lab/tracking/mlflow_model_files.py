"""The files by which MLflow loads a logged model: `MLmodel`, and what `mlflow.pytorch.load_model` says.

MLmodel                             flavour python_function: jepa_lab.interop.mlflow_model reads the two below
input_example.json                  an image as an array, which MLflow's pages show
serving_input_example.json          the same as the body of a request to `mlflow models serve`
model.safetensors, config.yaml      the weights and the configuration, as in the run folder
pytorch/                            no model, but a sentence for those who call `mlflow.pytorch.load_model`
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow.models import ModelSignature

LOADER = "jepa_lab.interop.mlflow_model"
PYTORCH_FOLDER = "pytorch"
USAGE = (
    "mlflow.pyfunc.load_model(...).predict(images): images are uint8 pixels [n, height, width, C] as they are, cut to "
    "the square in the middle, resized, and normalised by channel_mean and channel_std inside; the result is the "
    "probed encoder's features averaged over patches, float32 [n, num_features]"
)
_EXAMPLE, _REQUEST = "input_example.json", "serving_input_example.json"
_LARGEST_EXAMPLE = 64  # pixels a side: it is written as JSON, and images of any size are taken


def write_model_files(folder: Path, model_id: str, run_id: str, result: Mapping[str, Any]) -> None:
    """Write what lies beside the weights and the configuration of a logged model.

    Args:
        folder: an empty one.
        result: content of result.json.
    """
    from mlflow.models import Model

    model = Model(run_id=run_id, model_uuid=model_id, model_id=model_id, signature=_signature(result))
    known = {key: result[key] for key in ("channel_mean", "channel_std", "encoder") if key in result}
    model.metadata = {"usage": USAGE, **known}
    model.add_flavor("python_function", loader_module=LOADER, python_version=platform.python_version())
    model.add_flavor("pytorch", model_data=PYTORCH_FOLDER, pytorch_version="none")
    if "encoder" in result:
        model.saved_input_example_info = _write_example(folder, result["encoder"]["input_shape"])
    model.save(str(folder / "MLmodel"))
    _write_sentence(folder / PYTORCH_FOLDER, model_id)


def _signature(result: Mapping[str, Any]) -> ModelSignature | None:
    """What goes in and what comes out; None for a run of a jepa-lab that did not record it."""
    if "encoder" not in result:
        return None
    import numpy as np
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    encoder = result["encoder"]
    images = TensorSpec(np.dtype("uint8"), (-1, -1, -1, encoder["input_shape"][0]))
    features = TensorSpec(np.dtype("float32"), (-1, encoder["num_features"]))
    return ModelSignature(inputs=Schema([images]), outputs=Schema([features]))


def _write_example(folder: Path, input_shape: Sequence[int]) -> dict[str, Any]:
    """Write an image as MLflow shows and sends it; what `MLmodel` says of the files.

    Args:
        input_shape: C, H, W.
    """
    import numpy as np

    channels, *sides = input_shape
    height, width = (min(side, _LARGEST_EXAMPLE) for side in sides)
    ramps = np.add.outer(np.arange(height), np.arange(width))[..., None] + 60 * np.arange(channels)
    image = (ramps % 256).astype(np.uint8)[None]  # [1, H, W, C]
    (folder / _EXAMPLE).write_text(json.dumps(image.tolist()), encoding="utf-8")
    (folder / _REQUEST).write_text(json.dumps({"inputs": image.tolist()}), encoding="utf-8")
    return {"artifact_path": _EXAMPLE, "serving_input_path": _REQUEST, "type": "ndarray"}


def _write_sentence(folder: Path, model_id: str) -> None:
    """Let `mlflow.pytorch.load_model` fail with the call to use.

    It knows pickled modules alone. Without a flavour of that name it would say that there is none. With one it
    imports the pickle module that a file names, and repeats that name when there is no such module: the sentence.
    """
    sentence = f"none: these weights are not pickled; load them with mlflow.pyfunc.load_model('models:/{model_id}')"
    folder.mkdir()
    for name in ("pickle_module_info.txt", "model.pth"):
        (folder / name).write_text(sentence, encoding="utf-8")
