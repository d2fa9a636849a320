"""The life of a run: configuration -> objects -> run folder -> result.

This is the composition root: the one place that knows how the parts fit together.
"""

from __future__ import annotations

import logging
import shlex
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from jepa_lab.build import (
    PreparedData,
    build_augmentation,
    build_batches,
    build_model,
    build_sampler,
    build_step,
    prepare_data,
    prepare_probe_data,
    skipped_record,
    surveys_of,
)
from jepa_lab.config.checks import check_pipeline
from jepa_lab.config.loading import LoadedPipeline, config_digest, dump_pipeline
from jepa_lab.config.pipeline import Pipeline
from jepa_lab.data.survey import load_surveys, save_surveys
from jepa_lab.errors import JepaLabError, RunCrashed, RunInterrupted, RunPruned, RunTerminated
from jepa_lab.evaluation import OnlineEvaluation, final_evaluation, probe_splits
from jepa_lab.interruption import StopRequested, StopSignals
from jepa_lab.randomness import build_generator
from jepa_lab.tracking.base import TRACKERS, FollowedElsewhere, MirrorState, Tracker
from jepa_lab.tracking.credentials import scrub
from jepa_lab.tracking.description import DatasetRecord, RunDescription, RunStatus, flat_params
from jepa_lab.tracking.environment import describe_environment
from jepa_lab.tracking.locks import FileLock
from jepa_lab.tracking.metrics import MetricsWriter, read_metrics
from jepa_lab.tracking.run_folder import RunFolder
from jepa_lab.training.checkpoint import Checkpoint, CheckpointStore
from jepa_lab.training.devices import Compute, memory_errors, resolve_compute
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


@dataclass(frozen=True)
class Membership:
    """What a run is a part of: a sweep, which follows its trials for the tracker.

    Attributes:
        tags, params: what the tracker is told beside the run's own.
        lock_seconds: how long to wait for a process that is still leaving the run.
    """

    tags: Mapping[str, str]
    params: Mapping[str, str]
    lock_seconds: float = 60.0


def start_run(
    loaded: LoadedPipeline, run_root: Path, command: Sequence[str], member: Membership | None = None
) -> RunOutcome:
    """Check a pipeline, load its data, and train and probe it in a new run folder.

    Args:
        member: of what it is a part; None for a run of its own.
    Raises:
        ConfigError, DataError, DeviceError, RunFolderError: before anything was written.
        RunStopped: a good run was stopped from outside; it can be resumed.
    """
    started = time.monotonic()
    pipeline = loaded.pipeline
    with stoppable() as stop:
        check_pipeline(loaded)
        if pipeline.training.num_threads is not None:
            torch.set_num_threads(pipeline.training.num_threads)
        with loaded.located("training"):
            compute = resolve_compute(pipeline.training)
        data, probe_data = load_data(loaded, compute.device)
        check_batch(loaded, data)
        check_probe(loaded, probe_data)
        resolved = dump_pipeline(pipeline)
        folder = RunFolder.create(run_root, pipeline.name, config_digest(pipeline), pipeline.seed, resolved)
        with locked(folder):
            folder.write_environment(describe_environment(command, compute.describe()))
            return Run(pipeline, folder, compute, data, probe_data, None, started, stop, member).execute()


@contextmanager
def stoppable() -> Iterator[StopSignals]:
    """Ctrl-C and SIGTERM become errors with their exit code.

    Raises:
        RunInterrupted, RunTerminated: where the run itself has not said so already.
    """
    with StopSignals() as stop:
        try:
            yield stop
        except KeyboardInterrupt as error:
            raise _interruption(error, "before the training went on; give the same command again") from None


def _interruption(error: KeyboardInterrupt, where: str) -> RunInterrupted:
    """The error that tells how a run was stopped."""
    if isinstance(error, StopRequested) and error.signal == signal.SIGTERM:
        return RunTerminated(f"ended by SIGTERM {where}")
    return RunInterrupted(f"interrupted {where}")


@contextmanager
def locked(folder: RunFolder, timeout_seconds: float = 0) -> Iterator[None]:
    """Be the only process that writes the run.

    Args:
        timeout_seconds: how long to wait for another one to leave.
    Raises:
        RunFolderError: if another process is.
    """
    with FileLock(folder.path / "run.lock", f"the run {folder.path}") as lock:
        lock.acquire(timeout_seconds)
        yield


def load_data(
    loaded: LoadedPipeline, device: torch.device, surveys: Path | None = None
) -> tuple[PreparedData, PreparedData]:
    """What is trained on, and what the probe works on.

    Args:
        surveys: the run's data.json, where it goes on.
    """
    pipeline = loaded.pipeline
    known, note = ({}, None) if surveys is None else load_surveys(surveys)
    with memory_errors(pipeline.training):
        with loaded.located("data"):
            data = prepare_data(pipeline, device, known.get("data"))
        data = data if note is None else replace(data, notes=(note, *data.notes))
        with loaded.located("probe.data"):
            return data, prepare_probe_data(pipeline, data, device, known.get("probe.data"))


def check_probe(loaded: LoadedPipeline, data: PreparedData) -> None:
    """Refuse what the probe could not do, before anything is trained.

    Raises:
        DataError: a class is missing from a split. ConfigError: a setting that needs more images.
    """
    with loaded.located("data" if loaded.pipeline.probe.data is None else "probe.data"):
        splits = probe_splits(data)
    if splits is not None:
        with loaded.located("probe"):
            splits.check(loaded.pipeline.probe)


def check_batch(loaded: LoadedPipeline, data: PreparedData) -> None:
    batch_size, available = loaded.pipeline.training.batch_size, len(data.train)
    if batch_size > available:
        raise loaded.error(
            "training.batch_size",
            f"training.batch_size must be at most the number of training images, got {batch_size} and {available} "
            "(after the validation split); lower it, or use more images",
        )


def build_tracker(pipeline: Pipeline, folder: RunFolder) -> Tracker:
    """The pipeline's tracker, not started; where the record of a run that goes on is."""
    tracker = TRACKERS.entry_of(pipeline.tracking).component(pipeline.tracking)
    if folder.description.exists():
        tracker.keep_place(folder.read_description().tracker)
    return tracker


@dataclass(frozen=True)
class Run:
    """A run whose folder exists.

    Attributes:
        checkpoint: what it goes on from; None to begin at step 0.
        started: time.monotonic() when the command began.
    """

    pipeline: Pipeline
    folder: RunFolder
    compute: Compute
    data: PreparedData
    probe_data: PreparedData
    checkpoint: Checkpoint | None
    started: float
    stop: StopSignals
    member: Membership | None = None

    def execute(self) -> RunOutcome:
        """Train, probe and write result.json, whatever happens; then let the tracker catch up."""
        tracker = build_tracker(self.pipeline, self.folder)
        if self.member is not None:
            tracker = FollowedElsewhere(tracker)
        self.folder.write_description(self._description(tracker))
        save_surveys(self.folder.path / "data.json", surveys_of(self.data, self.probe_data))
        with self.folder.open_log():
            for note in dict.fromkeys((*self.data.notes, *self.probe_data.notes)):
                logger.warning(note)
            try:
                tracker.start(self.folder)
                with memory_errors(self.pipeline.training):
                    self._train_and_probe()
            except Exception as error:
                message = str(error) if isinstance(error, JepaLabError) else repr(error)
                status: RunStatus = "KILLED" if isinstance(error, RunPruned) else "FAILED"
                self._record_end(status, message, collapsed=isinstance(error, RunCollapsed))
                self._close_after_error(tracker, _TRACKER_TIMEOUT_SECONDS)
                if isinstance(error, JepaLabError):
                    raise
                logger.critical("crashed", exc_info=error)
                raise RunCrashed(
                    f"jepa-lab crashed: {type(error).__name__}: {error}. This is a mistake of ours: the traceback is "
                    f"in {self.folder.log}; please report it"
                ) from error
            except BaseException as error:  # Ctrl-C and the like: leave at once, the mirror goes on by itself
                self._record_end("KILLED", str(error) or type(error).__name__)
                self._close_after_error(tracker, 0.0)
                if isinstance(error, KeyboardInterrupt):
                    raise _interruption(error, self._how_to_go_on()) from None
                raise
            mirror = tracker.close(_TRACKER_TIMEOUT_SECONDS)
        result = self.folder.read_result()
        assert result is not None, "written by _train_and_probe"
        return RunOutcome(self.folder, result, tracker.describe(), mirror)

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
        params = flat_params(config)
        if self.member is not None:
            tags, params = {**tags, **self.member.tags}, {**self.member.params, **params}
        return RunDescription(params, tags, dataset, tracker.settings())

    def _train_and_probe(self) -> None:
        model = build_model(self.pipeline, self.data.train.images.shape[1]).to(self.compute.device)
        online = OnlineEvaluation(self.pipeline, model, self.data, self.probe_data, self.compute)
        cursor = 0 if self.checkpoint is None else self.checkpoint.run.metrics_cursor
        with MetricsWriter(self.folder.metrics, cursor) as metrics:
            pretraining = self._build_pretraining(model, online, metrics)
            if self.checkpoint is not None:
                pretraining.restore(self.checkpoint)
            first = pretraining.steps_taken
            logger.info("training from step %d to %d on %s", first, pretraining.total_steps, self.compute.describe())
            with closing(pretraining.batches), build_display(pretraining.total_steps, first) as display:
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
            **skipped_record(self.data, self.probe_data),
            "total_seconds": time.monotonic() - self.started,
        }
        self.folder.write_result("FINISHED", summary, pretraining.total_steps, final, **more)

    def _build_pretraining(self, model: Any, online: OnlineEvaluation, metrics: MetricsWriter) -> Pretraining:
        pipeline, device = self.pipeline, self.compute.device
        batches = build_batches(pipeline, self.data, device)
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
            config=dump_pipeline(pipeline),
            stop=self.stop,
            stop_file=self.folder.stop_file,
        )

    def _training_summary(self, pretraining: Pretraining, online: OnlineEvaluation) -> dict[str, float | None]:
        """Flat numbers of the training for result.json and the tracker."""
        rows = [row for row in read_metrics(self.folder.metrics) if "monitor/rankme" in row.metrics]
        model = pretraining.step.model
        seconds = pretraining.stopwatch.seconds()
        images = pretraining.total_steps * self.pipeline.training.batch_size
        return {
            "rankme_start": rows[0].metrics["monitor/rankme"],
            "rankme_end": rows[-1].metrics["monitor/rankme"],
            "training_seconds": seconds,
            "images_per_second": images / seconds if seconds > 0 else None,
            "collapsed": float(online.collapsed),
            "encoder_parameters": float(sum(p.numel() for p in model.context_encoder.parameters())),
            "predictor_parameters": float(sum(p.numel() for p in model.predictor.parameters())),
        }

    def _how_to_go_on(self) -> str:
        steps = CheckpointStore(self.folder.checkpoints).steps()
        saved = f"the last checkpoint is that of step {steps[-1]}" if steps else "no step was taken"
        return f"({saved}); go on with `jepa-lab run --resume {shlex.quote(str(self.folder.path))}`"

    def _record_end(self, status: RunStatus, message: str, collapsed: bool = False) -> None:
        """Write how the run ended, unless the disk is what ended it."""
        steps = CheckpointStore(self.folder.checkpoints).steps()
        metrics, more = ({"collapsed": 1.0}, {"collapsed": True}) if collapsed else ({}, {})
        try:
            self.folder.write_result(status, metrics, steps[-1] if steps else 0, None, error=scrub(message), **more)
        except JepaLabError as error:
            logger.warning("result.json could not be written: %s", error)

    def _close_after_error(self, tracker: Tracker, timeout_seconds: float) -> None:
        """Let the tracker catch up; what goes wrong there must not hide why the run ended."""
        try:
            tracker.close(timeout_seconds)
        except (JepaLabError, AssertionError) as error:
            logger.warning("the tracker could not be closed: %s", error)
