"""`jepa-lab probe`: probe the encoder of a run again, with other settings or on other data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from jepa_lab.build import build_model, prepare_data, prepare_probe_data
from jepa_lab.config.checks import check_pipeline
from jepa_lab.config.documents import parse_override
from jepa_lab.config.loading import LoadedPipeline, changed_keys, load_pipeline, load_resolved
from jepa_lab.config.pipeline import Pipeline
from jepa_lab.data.survey import Survey, load_surveys
from jepa_lab.data_record import data_record
from jepa_lab.errors import ConfigError, RunFolderError, printable
from jepa_lab.evaluation import check_probes, final_evaluation, probe_splits
from jepa_lab.figures.runs.confusion import confusion_drawings
from jepa_lab.looks import KIND, VERSION, Looks, count_looks, probe_files
from jepa_lab.run_figures import write_figure
from jepa_lab.runs.predictions import FILE, read_predictions
from jepa_lab.tracking.atomic import explained_writes
from jepa_lab.tracking.records import write_record
from jepa_lab.tracking.run_folder import RunFolder
from jepa_lab.training.checkpoint import Checkpoint, CheckpointStore
from jepa_lab.training.devices import memory_errors, resolve_compute

_ALLOWED = (
    "probe.",
    "training.device",
    "training.num_threads",
    "data.residency",
    "data.num_workers",
    "data.cache",
)


def probe_again(
    folder: RunFolder, overrides: Sequence[str], step: int | None, *, score_test: bool = False
) -> tuple[Path, dict[str, Any]]:
    """Probe a checkpoint and write `probes/<number>.json` beside the run's own result, which stays.

    Args:
        overrides: of the `probe` section, of the device and its threads.
        step: of the checkpoint; None for the last one.
        score_test: whether the test split is scored, whatever the run's `probe.score_test` says; the file counts how
            often it has been.
    Returns:
        The file, and its content.
    Raises:
        ConfigError: an override of anything that the encoder was trained with; no test split to score.
        RunFolderError: no such checkpoint, or the images have changed. RunStopped: out of memory.
    """
    _refuse_score_test(overrides)
    stored = divided_as_trained(load_resolved(folder.config.read_text(encoding="utf-8"), str(folder.config)), folder)
    loaded = load_pipeline(folder.config, overrides)
    loaded = replace(loaded, pipeline=_scoring_test(divided_as_trained(loaded.pipeline, folder), score_test))
    pipeline = loaded.pipeline
    foreign = [key for key in changed_keys(stored, pipeline) if not key.startswith(_ALLOWED)]
    if foreign:
        raise ConfigError(
            f"{', '.join(foreign)} cannot change: the encoder of {folder.path} was trained with it; "
            "a probe takes probe.*, training.device, training.num_threads, data.residency, data.num_workers and "
            "data.cache alone"
        )
    check_pipeline(loaded)
    looks = count_looks(folder, stored, pipeline)
    checkpoint = CheckpointStore(folder.checkpoints).load(step)
    file = _next_file(folder)
    with memory_errors(pipeline.training):
        known, note = load_surveys(folder.path / "data.json")
        if note is not None:
            print(f"note: {note}", flush=True)
        summary, details = _probe(folder, loaded, checkpoint, known, looks, file)
    content = {
        "step": checkpoint.run.step,
        "settings": pipeline.probe.model_dump(mode="json"),
        "metrics": summary,
        **details,
    }
    write_record(file, KIND, VERSION, content)
    if "predictions" in content:
        for drawing in confusion_drawings(
            read_predictions(file.parent, content["predictions"]), content["probe_titles"]
        ):
            write_figure(drawing, _figures(file))
    return file, content


def _figures(file: Path) -> Path:
    """The folder of a probe's figures, beside its result."""
    return file.with_name(f"{file.stem}-figures")


def _probe(
    folder: RunFolder,
    loaded: LoadedPipeline,
    checkpoint: Checkpoint,
    known: Mapping[str, Survey],
    looks: Looks,
    file: Path,
) -> tuple[dict[str, float | None], dict[str, Any]]:
    """Load what is needed and probe; see `final_evaluation`.

    Args:
        file: of the result, beside which figures and predictions go.
    """
    pipeline = loaded.pipeline
    if pipeline.training.num_threads is not None:
        torch.set_num_threads(pipeline.training.num_threads)
    with loaded.located("training"):
        compute = resolve_compute(pipeline.training)
    with loaded.located("data"):
        data = prepare_data(pipeline, compute.device, known.get("data"))
    refuse_changed_data(folder, data.digest)
    section = "data" if pipeline.probe.data is None else "probe.data"
    with loaded.located(section):
        probe_data = prepare_probe_data(pipeline, data, compute.device, known.get("probe.data"))
        splits = probe_splits(probe_data)
    has_test = splits is not None and splits.test is not None
    if looks.scored and not has_test:
        raise ConfigError(f"--score-test needs a labelled test split, and {section} has none; leave it out")
    if splits is not None:
        check_probes(loaded, splits)
    if pipeline.probe.data is not None:
        for note in probe_data.told:
            print(f"note on the probe images: {printable(note)}", flush=True)
    model = build_model(pipeline, data.train.images.shape[1])
    model.load_state_dict(checkpoint.model)
    summary, details = final_evaluation(
        pipeline,
        model.to(compute.device),
        probe_data,
        compute,
        _figures(file),
        announce=lambda text: print(text, flush=True),
        predictions=file.with_name(f"{file.stem}-{FILE}"),
    )
    return summary, {"test_split": looks.to_dict() if has_test else None, **details, **data_record(data, probe_data)}


def _refuse_score_test(overrides: Sequence[str]) -> None:
    """The test split is scored by an option alone, so that nobody looks at it by a setting that was stored.

    Raises:
        ConfigError: an override sets it, too.
    """
    for text in overrides:
        path, value = parse_override(text)
        if path == ("probe", "score_test") or (
            path == ("probe",) and isinstance(value, dict) and "score_test" in value
        ):
            raise ConfigError(
                f"override {text!r}: `jepa-lab probe` does not read probe.score_test; pass --score-test to score the "
                "test split, or leave both out"
            )


def _scoring_test(pipeline: Pipeline, score_test: bool) -> Pipeline:
    return pipeline.model_copy(update={"probe": pipeline.probe.model_copy(update={"score_test": score_test})})


def divided_as_trained(pipeline: Pipeline, folder: RunFolder) -> Pipeline:
    """Keep images that a run was trained on from becoming its test split.

    A run of a jepa-lab that knew no `data.test_fraction` trained on all images of a folder without a test split.
    """
    if "data.test_fraction" in folder.read_description().params:
        return pipeline
    return pipeline.model_copy(update={"data": pipeline.data.model_copy(update={"test_fraction": 0.0})})


def refuse_changed_data(folder: RunFolder, digest: str) -> None:
    """The images of the run are probed, or normalize those that are.

    Raises:
        RunFolderError: they are not those that the encoder was trained on.
    """
    description = folder.read_description()
    recorded = description.dataset
    if recorded is not None and recorded.digest != digest:
        if "data.resize" not in description.params:
            raise RunFolderError(
                f"the images of {folder.path} were cut to their centre squares by an earlier version of jepa-lab, and "
                "this one stores whole pictures (data.resize), so its encoder cannot be probed on what it was trained "
                "on; use that version, or start a new run"
            )
        raise RunFolderError(
            f"the images of data.dataset={recorded.name!r} have changed since {folder.path} began (digest "
            f"{recorded.digest}, now {digest}), so its encoder cannot be probed on what it was trained on; restore them"
        )


def _next_file(folder: RunFolder) -> Path:
    """`probes/<number>.json`, numbered after all that are there."""
    target = folder.path / "probes"
    with explained_writes(target):
        target.mkdir(exist_ok=True)
    numbers = [int(file.stem) for file in probe_files(folder)]
    return target / f"{max(numbers, default=0) + 1}.json"
