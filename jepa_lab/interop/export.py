"""`jepa-lab export`: the encoder of a run as a folder that another library reads, checked on the run's own images."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from jepa_lab.build import PreparedData, build_model, prepare_data, prepare_probe_data
from jepa_lab.config.loading import load_resolved
from jepa_lab.config.pipeline import Pipeline
from jepa_lab.data.images import to_tensor
from jepa_lab.data.resident import normalize, to_float
from jepa_lab.data.survey import load_surveys
from jepa_lab.errors import ConfigError
from jepa_lab.evaluation import encoder_at_probed_grid
from jepa_lab.interop.exports import EXPORT_FORMATS
from jepa_lab.interop.exports.base import ExportFormat
from jepa_lab.interop.model_card import Exported, model_card
from jepa_lab.models.vit import VisionTransformer
from jepa_lab.randomness import build_generator
from jepa_lab.reprobe import divided_as_trained, refuse_changed_data
from jepa_lab.tracking.atomic import explained_writes, sync_folder, umask, write_text_atomically
from jepa_lab.tracking.run_folder import RunFolder
from jepa_lab.training.checkpoint import CheckpointStore
from jepa_lab.training.devices import memory_errors
from jepa_lab.weights.encoder_parts import EncoderParts, take_apart

TOLERANCE = 1e-4
_CHECKED_IMAGES = 16


@dataclass(frozen=True)
class ExportRequest:
    """What to export.

    Attributes:
        format: name of an export format.
        encoder: which of the two.
        step: of the checkpoint; None for the last one.
    """

    format: str
    encoder: Literal["target", "context"] = "target"
    step: int | None = None


@dataclass(frozen=True)
class ExportOutcome:
    """What was exported.

    Attributes:
        difference: largest one between our features and those of the other library, of any patch of any image.
        num_images: that they were compared on.
    """

    folder: Path
    difference: float
    num_images: int

    def sentence(self) -> str:
        """For whoever exported."""
        return (
            f"wrote {self.folder}; read back and compared with our own features of {self.num_images} validation "
            f"images: they differ by at most {self.difference:.1e}"
        )


def export_run(folder: RunFolder, request: ExportRequest, out: Path) -> ExportOutcome:
    """Write a new folder with the encoder of a run, or nothing.

    The encoder is that of the image size that the run's probe measured. What another library computes from the
    written files is compared with our own features of validation images before the folder gets its name.

    Raises:
        ConfigError: the format cannot hold the encoder, a package is missing, or `out` exists.
        RunFolderError: no such checkpoint, or the images have changed. DataError: the images are missing.
        RunStopped: the disk is full, or memory is short.
        ValueError: the other library computes something else: our own fault, or that of its version.
    """
    pipeline = load_resolved(folder.config.read_text(encoding="utf-8"), str(folder.config))  # with its plug-ins
    entry = EXPORT_FORMATS.get(request.format)
    writer = entry.component(entry.params_type())
    _require_packages(writer, request.format)
    if os.path.lexists(out):
        raise ConfigError(f"--out {out} already exists; name a new folder, or remove it first")
    pipeline = divided_as_trained(pipeline, folder)
    checkpoint = CheckpointStore(folder.checkpoints).load(request.step)
    with memory_errors(pipeline.training):
        data, images = _images(folder, pipeline)
        model = build_model(pipeline, data.train.images.shape[1])
        model.load_state_dict(checkpoint.model)
        chosen = model.target_encoder if request.encoder == "target" else model.context_encoder
        encoder = encoder_at_probed_grid(chosen, pipeline).eval()
        parts = take_apart(encoder, data.mean, data.std, pipeline.probe.crop_fraction)
        objection = writer.objection(parts)
        if objection is not None:
            raise ConfigError(f"--to {request.format}: {objection}")
        with _new_folder(out) as unfinished:
            writer.write(parts, unfinished)
            difference = _difference(writer, unfinished, encoder, images, parts)
            exported = Exported(folder, pipeline, request.encoder, checkpoint.run.step, parts, difference, len(images))
            write_text_atomically(unfinished / "README.md", model_card(exported, writer.usage(), out.name))
    return ExportOutcome(out, difference, len(images))


def _require_packages(writer: ExportFormat, name: str) -> None:
    missing = [package for package in writer.packages if importlib.util.find_spec(package) is None]
    if missing:
        raise ConfigError(
            f"--to {name} needs {' and '.join(missing)}, which is not installed here; "
            "install it with `pip install 'jepa-lab[interop]'`"
        )


def _images(folder: RunFolder, pipeline: Pipeline) -> tuple[PreparedData, Tensor]:
    """The data of the run, and some validation images [n, C, H, W] uint8 of the size that was probed."""
    known, _ = load_surveys(folder.path / "data.json")
    data = prepare_data(pipeline, known=known.get("data"))
    refuse_changed_data(folder, data.digest)
    own = pipeline.model_copy(update={"probe": pipeline.probe.model_copy(update={"data": None})})
    validation = prepare_probe_data(own, data).validation
    order = torch.randperm(len(validation), generator=build_generator(pipeline.data.split_seed, "checked exports"))
    return data, to_tensor(validation.images[order[:_CHECKED_IMAGES].sort().values])


@torch.no_grad()
def _difference(
    writer: ExportFormat, folder: Path, encoder: VisionTransformer, images: Tensor, parts: EncoderParts
) -> float:
    """The largest difference of a feature.

    Raises:
        ValueError: it is above the tolerance.
    """
    ours = encoder(normalize(to_float(images), parts.mean, parts.std))
    theirs = writer.features(folder, images)
    if theirs.shape != ours.shape:
        raise ValueError(f"the export was read back as features {tuple(theirs.shape)} instead of {tuple(ours.shape)}")
    difference = (theirs - ours).abs().max().item()
    if not difference <= TOLERANCE:
        raise ValueError(f"the export was read back with features that differ by {difference:.3g} from our own")
    return difference


@contextlib.contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """A folder that gets the name `out` when the block ends well, and is gone otherwise."""
    with explained_writes(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}."))
        try:
            yield unfinished
            os.chmod(unfinished, 0o777 & ~umask())
            os.rename(unfinished, out)
            sync_folder(out.parent)
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise
