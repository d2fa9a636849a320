"""The class that each probe of a run predicted for each image: `predictions.safetensors` of its folder.

```
validation/positions          [n] of the split's images in the data set's own split that they were chosen from
validation/labels             [n] their true classes
validation/trained/logistic   [n] predicted classes; [R, n] for the mean of R fits, such as draws of labels
validation/random_encoder/low_shot/10   the row of the table, the probe, the key of its score where it has one
test/...                      the same for the test split, where it was scored
```
Integers are of the smallest type that fits. The metadata has one entry, `jepa_lab`: JSON with the format version,
the class names, what tells the images of each split from others, and the tensor of each number in `result.json`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
from pydantic import TypeAdapter, ValidationError
from safetensors.numpy import load, save

from jepa_lab.errors import RunFolderError
from jepa_lab.tracking.atomic import write_bytes_atomically
from jepa_lab.tracking.records import RESTORE
from jepa_lab.tracking.run_folder import RunFolder

FILE = "predictions.safetensors"
VERSION = 1
NOT_KEPT = "no predictions were kept with the run (by an earlier jepa-lab)"
_ENTRY = "jepa_lab"
_LENGTH_BYTES = 8  # a safetensors file begins with the length of its JSON header, little-endian


@dataclass(frozen=True)
class SplitImages:
    """Where the images of a split are from, whatever they were resized to.

    Attributes:
        dataset: digest of the data set's name and parameters. content: digest of its pixels at this size.
        image_size: height and width in pixels.
    """

    dataset: str
    content: str
    image_size: int

    def may_share_images_with(self, other: SplitImages) -> bool:
        """Whether the same position is the same picture in both."""
        return self.dataset == other.dataset and (self.content == other.content or self.image_size != other.image_size)


@dataclass(frozen=True)
class ScoredImages:
    """How the images of a split were classified by one probe of one run.

    Attributes:
        images: where they are from.
        positions: [n] int64, increasing. labels: [n] int64.
        correct: [n] float64, how often each was predicted right, a share of the fits: 0 or 1 for most probes.
        num_fits: R, that are averaged, such as one for each draw of labels.
    """

    images: SplitImages
    positions: np.ndarray
    labels: np.ndarray
    correct: np.ndarray
    num_fits: int = 1

    def are_those_of(self, other: ScoredImages) -> bool:
        """Whether image i is the same picture in both."""
        return (
            self.images.may_share_images_with(other.images)
            and np.array_equal(self.positions, other.positions)
            and np.array_equal(self.labels, other.labels)
        )


@dataclass(frozen=True)
class _Header:
    """The metadata."""

    format_version: int
    class_names: tuple[str, ...]
    images: dict[str, SplitImages]
    metrics: dict[str, str]


_HEADER = TypeAdapter(_Header)  # once: it takes a hundred times as long to build as to use


@dataclass(frozen=True)
class RunPredictions:
    """The predictions of a run.

    Attributes:
        class_names: in the order of the labels.
        images: of the splits `validation` and, where it was scored, `test`.
        metrics: the tensor of each accuracy, by its flat name in `result.json`.
        tensors: integer arrays by name, see the module.
    """

    class_names: tuple[str, ...]
    images: Mapping[str, SplitImages]
    metrics: Mapping[str, str]
    tensors: Mapping[str, np.ndarray]

    def scored(self, metric: str) -> ScoredImages | None:
        """The images that an accuracy is about; None for a number without predictions.

        Args:
            metric: as in `result.json`.
        """
        if metric not in self.metrics:
            return None
        split = self.metrics[metric].split("/", maxsplit=1)[0]
        predicted = np.atleast_2d(self.tensors[self.metrics[metric]])  # [R, n]
        positions, labels = (self.tensors[f"{split}/{name}"].astype(np.int64) for name in ("positions", "labels"))
        correct = (predicted == labels).mean(axis=0)
        return ScoredImages(self.images[split], positions, labels, correct, len(predicted))


def write_predictions(path: Path, predictions: RunPredictions) -> dict[str, str]:
    """Write the file atomically.

    Returns:
        Its name and SHA-256, for `result.json`; the digest depends on the content alone.
    Raises:
        RunStopped: the disk is full. RunFolderError: the folder may not be written.
    """
    header = _Header(VERSION, predictions.class_names, dict(predictions.images), dict(predictions.metrics))
    # One entry: the library keeps several in an order that is another one in every process.
    content = save(_small(predictions.tensors), {_ENTRY: json.dumps(asdict(header), sort_keys=True)})
    write_bytes_atomically(path, content)
    return {"file": path.name, "sha256": hashlib.sha256(content).hexdigest()}


def read_predictions(folder: Path, record: Mapping[str, Any]) -> RunPredictions:
    """The predictions of a run that has ended.

    Args:
        folder: of the file. record: what `write_predictions` gave, from `result.json`.
    Raises:
        RunFolderError: the file is missing, damaged or of a newer jepa-lab.
    """
    path = folder / Path(str(record["file"])).name
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise RunFolderError(f"{path} is missing", remedy=RESTORE) from None
    except OSError as error:
        raise RunFolderError(f"{path} cannot be read ({error})", remedy=RESTORE) from error
    if hashlib.sha256(content).hexdigest() != record["sha256"]:
        raise RunFolderError(f"{path} is damaged: its SHA-256 is not the one recorded", remedy=RESTORE)
    return _parsed(content, path)


def predictions_of_run(folder: RunFolder) -> RunPredictions | str:
    """The predictions that a run kept, or in words why there are none."""
    if not folder.path.is_dir():
        return f"the run folder {folder.path} is not on this machine"
    try:
        return predictions_of_result(folder, folder.read_result() or {})
    except RunFolderError as error:
        return str(error)


def predictions_of_result(folder: RunFolder, result: Mapping[str, Any]) -> RunPredictions | str:
    """The same where the content of result.json has been read already."""
    record = result.get("predictions")
    try:
        return NOT_KEPT if record is None else read_predictions(folder.path, record)
    except RunFolderError as error:
        return str(error)


def _parsed(content: bytes, path: Path) -> RunPredictions:
    try:
        tensors = load(content)
        length = int.from_bytes(content[:_LENGTH_BYTES], "little")
        described = json.loads(json.loads(content[_LENGTH_BYTES : _LENGTH_BYTES + length])["__metadata__"][_ENTRY])
        version = described["format_version"]
        if version != VERSION:
            raise RunFolderError(
                f"{path} has format version {version}, this jepa-lab reads {VERSION}; use the version that wrote it"
            )
        header = _HEADER.validate_python(described)
    except (safetensors.SafetensorError, KeyError, TypeError, ValueError, ValidationError) as error:
        raise RunFolderError(f"{path} is not a file of predictions ({error})", remedy=RESTORE) from error
    return RunPredictions(header.class_names, header.images, header.metrics, tensors)


def _small(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: np.ascontiguousarray(each, smallest_dtype(each)) for name, each in tensors.items()}


def smallest_dtype(values: np.ndarray) -> np.dtype:
    """The smallest integer type that holds them and that PyTorch has, too."""
    largest = int(values.max(initial=0))
    return np.dtype(next(each for each in (np.uint8, np.int16, np.int32, np.int64) if largest <= np.iinfo(each).max))
