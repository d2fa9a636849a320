"""The life of a run: configuration -> objects -> run folder -> result.

This is the composition root: the one place that knows how the parts fit together.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from jepa_lab.build import (
    PreparedData,
    build_augmentation,
    build_model,
    build_sampler,
    build_step,
    prepare_data,
    prepare_probe_data,
)
from jepa_lab.config.checks import check_pipeline
from jepa_lab.config.loading import (
    LoadedPipeline,
    changed_keys,
    config_digest,
    dump_pipeline,
    flat_items,
    load_pipeline,
)
from jepa_lab.config.pipeline import Pipeline
from jepa_lab.data.resident import ResidentBatches
from jepa_lab.errors import JepaLabError, RunCrashed, RunFolderError, RunInterrupted
from jepa_lab.evaluation import OnlineEvaluation, final_evaluation, probe_splits
from jepa_lab.randomness import build_generator
from jepa_lab.tracking.base import TRACKERS, MirrorState, Tracker
from jepa_lab.tracking.description import DatasetRecord, RunDescription, RunStatus, flat_params
from jepa_lab.tracking.locks import FileLock
from jepa_lab.tracking.metrics import MetricsWriter, read_metrics
from jepa_lab.tracking.mirror_cursor import mirror_state
from jepa_lab.tracking.run_folder import RunFolder
from jepa_lab.training.checkpoint import Checkpoint, CheckpointStore
from jepa_lab.training.devices import Compute, memory_errors, resolve_compute, resume_compute
from jepa_lab.training.pretrain import Pretraining, RunCollapsed
from jepa_lab.training.progress import build_display

logger = logging.getLogger(__name__)

_TRACKER_TIMEOUT_SECONDS = 30.0


@dataclass(frozen=True)
class RunOutcome:
    """What the end of a run tells.

    Attributes:
        result: content of result.json.
        tracker: where the tracker's copy is and how to open it. mirror: how complete that copy is.
    """

    folder: RunFolder
    result: dict[str, Any]
    tracker: str
    mirror: MirrorState


def start_run(loaded: LoadedPipeline, run_root: Path, command: Sequence[str]) -> RunOutcome:
    """Check a pipeline, load its data, and train and probe it in a new run folder.

    Raises:
        ConfigError, DataError, DeviceError, RunFolderError: before anything was written.
        RunStopped: a good run was stopped from outside; it can be resumed.
    """
    started = time.monotonic()
    pipeline = loaded.pipeline
    check_pipeline(loaded)
    if pipeline.training.num_threads is not None:
        torch.set_num_threads(pipeline.training.num_threads)
    with loaded.located("training"):
        compute = resolve_compute(pipeline.training)
    data, probe_data = _load_data(loaded)
    _check_batch(loaded, data)
    _check_probe(loaded, probe_data)
    folder = RunFolder.create(run_root, pipeline.name, config_digest(pipeline), pipeline.seed, dump_pipeline(pipeline))
    with _locked(folder):
        folder.write_environment(command, compute.describe())
        return _Run(pipeline, folder, compute, data, probe_data, checkpoint=None, started=started).execute()


def resume_run(folder: RunFolder, given: Pipeline | None) -> RunOutcome:
    """Go on with a run from its last checkpoint.

    Args:
        given: the pipeline of a file or of overrides that the user gave beside the folder; it must be the run's.
    Raises:
        RunFolderError: the configuration or the data have changed, no checkpoint can be read, or the run is alive.
        DeviceError: this machine does not compute as the one that the run began on.
    """
    started = time.monotonic()
    loaded = load_pipeline(folder.config)
    pipeline = loaded.pipeline
    if given is not None:
        refuse_changed_config(folder, pipeline, given)
    with _locked(folder):
        checkpoint = CheckpointStore(folder.checkpoints).load()
        recorded = folder.read_description()
        _refuse_edited_config(folder, pipeline, recorded, checkpoint)
        torch.set_num_threads(checkpoint.run.num_threads)
        with loaded.located("training"):
            compute = resume_compute(pipeline.training, checkpoint.run.device, checkpoint.run.precision)
        data, probe_data = _load_data(loaded)
        if recorded.dataset is not None and recorded.dataset.digest != data.digest:
            raise RunFolderError(
                f"the images of data.dataset={recorded.dataset.name!r} have changed since {folder.path} began "
                f"(digest {recorded.dataset.digest}, now {data.digest}); restore them, or start a new run"
            )
        result = folder.read_result()
        if result is not None and result["status"] == "FINISHED":
            return _finished(folder, pipeline, result)
        folder.remove_result()
        return _Run(pipeline, folder, compute, data, probe_data, checkpoint, started).execute()


def _finished(folder: RunFolder, pipeline: Pipeline, result: dict[str, Any]) -> RunOutcome:
    """The outcome of a run that has nothing left to do."""
    print("this run is finished already; this is its result", flush=True)
    tracker = TRACKERS.entry_of(pipeline.tracking).component(pipeline.tracking)
    mirror = MirrorState() if tracker.settings() is None else mirror_state(folder)
    return RunOutcome(folder, result, tracker.describe(), mirror)


@contextmanager
def _locked(folder: RunFolder) -> Iterator[None]:
    """Be the only process that writes the run.

    Raises:
        RunFolderError: if another process is.
    """
    with FileLock(folder.path / "run.lock", f"the run {folder.path}") as lock:
        lock.acquire(timeout_seconds=0)
        yield


def _refuse_edited_config(
    folder: RunFolder, pipeline: Pipeline, recorded: RunDescription, checkpoint: Checkpoint
) -> None:
    """config.yaml must say what it said when the run began; only `tracking` may move.

    Raises:
        RunFolderError: naming the keys that differ.
    """
    before, now = recorded.params, flat_params(pipeline.model_dump(mode="json"))
    changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    details = [f"{key} ({before.get(key)} -> {now.get(key)})" for key in changed if key.split(".")[0] != "tracking"]
    if details or checkpoint.run.config_digest != config_digest(pipeline):
        what = ", ".join(details) or "the checkpoints are those of another configuration"
        raise RunFolderError(f"{folder.config} was changed since the run began: {what}; restore it, or start a new run")


def refuse_changed_config(folder: RunFolder, stored: Pipeline, given: Pipeline) -> None:
    """A run goes on with the configuration it began with.

    Raises:
        RunFolderError: naming the keys that differ.
    """
    before, now = flat_items(stored), flat_items(given)
    changed = changed_keys(stored, given)
    if changed:
        details = ", ".join(f"{key} ({before.get(key)!r} -> {now.get(key)!r})" for key in changed)
        raise RunFolderError(
            f"{folder.path} was started with another configuration: {details}; "
            "leave these keys as they were, or start a new run without --resume"
        )


def _load_data(loaded: LoadedPipeline) -> tuple[PreparedData, PreparedData]:
    """What is trained on, and what the probe works on."""
    pipeline = loaded.pipeline
    with memory_errors(pipeline.training):
        with loaded.located("data"):
            data = prepare_data(pipeline)
        with loaded.located("probe.data"):
            return data, prepare_probe_data(pipeline, data)


def _check_probe(loaded: LoadedPipeline, data: PreparedData) -> None:
    """Refuse what the probe could not do, before anything is trained.

    Raises:
        DataError: a class is missing from a split. ConfigError: a setting that needs more images.
    """
    with loaded.located("data" if loaded.pipeline.probe.data is None else "probe.data"):
        splits = probe_splits(data)
    if splits is not None:
        with loaded.located("probe"):
            splits.check(loaded.pipeline.probe)


def _check_batch(loaded: LoadedPipeline, data: PreparedData) -> None:
    batch_size, available = loaded.pipeline.training.batch_size, len(data.train)
    if batch_size > available:
        raise loaded.error(
            "training.batch_size",
            f"training.batch_size must be at most the number of training images, got {batch_size} and {available} "
            "(after the validation split); lower it, or use more images",
        )


@dataclass(frozen=True)
class _Run:
    """A run whose folder exists."""

    pipeline: Pipeline
    folder: RunFolder
    compute: Compute
    data: PreparedData
    probe_data: PreparedData
    checkpoint: Checkpoint | None
    started: float  # time.monotonic()

    def execute(self) -> RunOutcome:
        """Train, probe and write result.json, whatever happens; then let the tracker catch up."""
        tracker = self._build_tracker()
        self.folder.write_description(self._description(tracker))
        with self.folder.open_log():
            try:
                tracker.start(self.folder)
                with memory_errors(self.pipeline.training):
                    self._train_and_probe()
            except Exception as error:
                message = str(error) if isinstance(error, JepaLabError) else repr(error)
                self._record_end("FAILED", message, collapsed=isinstance(error, RunCollapsed))
                self._close_after_error(tracker, _TRACKER_TIMEOUT_SECONDS)
                if isinstance(error, JepaLabError):
                    raise
                logger.critical("crashed", exc_info=error)
                raise RunCrashed(
                    f"jepa-lab crashed: {type(error).__name__}: {error}. This is a mistake of ours: the traceback is "
                    f"in {self.folder.log}; please report it"
                ) from error
            except BaseException as error:  # Ctrl-C and the like: leave at once, the mirror goes on by itself
                self._record_end("KILLED", type(error).__name__)
                self._close_after_error(tracker, 0.0)
                if isinstance(error, KeyboardInterrupt):
                    raise RunInterrupted(
                        f"interrupted; go on from the last checkpoint with `jepa-lab run --resume {self.folder.path}`"
                    ) from None
                raise
            mirror = tracker.close(_TRACKER_TIMEOUT_SECONDS)
        result = self.folder.read_result()
        assert result is not None, "written by _train_and_probe"
        return RunOutcome(self.folder, result, tracker.describe(), mirror)

    def _build_tracker(self) -> Tracker:
        return TRACKERS.entry_of(self.pipeline.tracking).component(self.pipeline.tracking)

    def _description(self, tracker: Tracker) -> RunDescription:
        pipeline = self.pipeline
        config = pipeline.model_dump(mode="json")
        parts = ("masker", "target", "loss", "ema_momentum", "augmentation")
        tags = {part: config[part]["name"] for part in parts}
        tags |= {
            "dataset": config["data"]["dataset"]["name"],
            "encoder_size": config["encoder"]["size"]["name"],
            "encoder_position": config["encoder"]["position"]["name"],
            "predictor_size": config["predictor"]["size"]["name"],
            "predictor_position": config["predictor"]["position"]["name"],
            "context_batching": pipeline.context_batching,
            "pipeline": pipeline.name,
            "seed": str(pipeline.seed),
            "config_digest": config_digest(pipeline),
            "run_folder": str(self.folder.path.resolve()),
        }
        dataset = DatasetRecord(tags["dataset"], self.data.source, self.data.digest)
        return RunDescription(flat_params(config), tags, dataset, tracker.settings())

    def _train_and_probe(self) -> None:
        model = build_model(self.pipeline, self.data.train.images.shape[1]).to(self.compute.device)
        online = OnlineEvaluation(self.pipeline, model, self.data, self.probe_data, self.compute)
        cursor = None if self.checkpoint is None else self.checkpoint.run.metrics_cursor
        with MetricsWriter(self.folder.metrics, cursor) as metrics:
            pretraining = self._build_pretraining(model, online, metrics)
            if self.checkpoint is not None:
                pretraining.restore(self.checkpoint)
            first = pretraining.steps_taken
            logger.info("training from step %d to %d on %s", first, pretraining.total_steps, self.compute.describe())
            with build_display(pretraining.total_steps, first) as display:
                pretraining.display = display
                pretraining.run()
                display.message("probing")
            summary, more = final_evaluation(self.pipeline, model, self.probe_data, self.compute, self.folder.figures)
        summary |= self._training_summary(pretraining, online)
        store = CheckpointStore(self.folder.checkpoints)
        final = store.path(pretraining.total_steps)
        more |= {
            "best_online_probe": {"step": pretraining.best_step, "accuracy": pretraining.best_online_probe},
            "collapsed": online.collapsed,
            "total_seconds": time.monotonic() - self.started,
        }
        self.folder.write_result("FINISHED", summary, pretraining.total_steps, final, **more)

    def _build_pretraining(self, model: Any, online: OnlineEvaluation, metrics: MetricsWriter) -> Pretraining:
        pipeline, device = self.pipeline, self.compute.device
        order = build_generator(pipeline.seed, "order")
        images = self.data.train.images.to(device)
        batches = ResidentBatches(images, pipeline.training.batch_size, order)
        return Pretraining(
            step=build_step(pipeline, model, self.compute, batches.steps_per_epoch),
            settings=pipeline.training,
            batches=batches,
            augmentation=build_augmentation(pipeline),
            sampler=build_sampler(pipeline),
            mean=self.data.mean.to(device),
            std=self.data.std.to(device),
            augmentation_generator=build_generator(pipeline.seed, "augmentation", device),
            mask_generator=build_generator(pipeline.seed, "masks", device),
            evaluation=online,
            evaluate_every_epochs=pipeline.probe.every_epochs,
            checkpoints=CheckpointStore(self.folder.checkpoints),
            metrics=metrics,
            config_digest=config_digest(pipeline),
        )

    def _training_summary(self, pretraining: Pretraining, online: OnlineEvaluation) -> dict[str, float | None]:
        """Flat numbers of the training for result.json and the tracker."""
        rows = [row for row in read_metrics(self.folder.metrics) if "monitor/rankme" in row.metrics]
        seconds = pretraining.stopwatch.seconds()
        images = pretraining.total_steps * self.pipeline.training.batch_size
        return {
            "rankme_start": rows[0].metrics["monitor/rankme"],
            "rankme_end": rows[-1].metrics["monitor/rankme"],
            "training_seconds": seconds,
            "images_per_second": images / seconds if seconds > 0 else None,
            "collapsed": float(online.collapsed),
        }

    def _record_end(self, status: RunStatus, message: str, collapsed: bool = False) -> None:
        """Write how the run ended, unless the disk is what ended it."""
        steps = CheckpointStore(self.folder.checkpoints).steps()
        metrics, more = ({"collapsed": 1.0}, {"collapsed": True}) if collapsed else ({}, {})
        try:
            self.folder.write_result(status, metrics, steps[-1] if steps else 0, None, error=message, **more)
        except JepaLabError as error:
            logger.warning("result.json could not be written: %s", error)

    def _close_after_error(self, tracker: Tracker, timeout_seconds: float) -> None:
        """Let the tracker catch up; what goes wrong there must not hide why the run ended."""
        try:
            tracker.close(timeout_seconds)
        except (JepaLabError, AssertionError) as error:
            logger.warning("the tracker could not be closed: %s", error)
