"""The life of a run: configuration -> objects -> run folder -> result.

This is the composition root: the one place that knows how the parts fit together.
"""

from __future__ import annotations

import json
import logging
import shlex
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from jepa_lab.build import (
    PreparedData,
    build_batches,
    build_model,
    build_timetable,
    build_whole_step,
    fit_target,
    prepare_data,
    prepare_probe_data,
    surveys_of,
)
from jepa_lab.config.checks import check_pipeline, check_regularizer
from jepa_lab.config.loading import LoadedPipeline, config_digest, dump_pipeline
from jepa_lab.config.pipeline import Pipeline
from jepa_lab.config.provenance import component_origins, plugin_components
from jepa_lab.contracts import plugin_failure
from jepa_lab.data.base import DATASETS
from jepa_lab.data.order import Batches
from jepa_lab.data.resident import channel_record
from jepa_lab.data.survey import Survey, load_surveys, save_surveys
from jepa_lab.data_record import data_record
from jepa_lab.errors import (
    DataError,
    JepaLabError,
    PluginError,
    RunCrashed,
    RunInterrupted,
    RunPruned,
    RunTerminated,
    printable,
)
from jepa_lab.evaluation import (
    OnlineEvaluation,
    check_probes,
    encoder_record,
    final_evaluation,
    final_monitors,
    probe_splits,
    refuse_probes_of_maps,
)
from jepa_lab.interruption import StopRequested, StopSignals
from jepa_lab.models.ijepa import IJepa
from jepa_lab.monitors.base import NUM_CURVE_IMAGES
from jepa_lab.output import unfailing_output
from jepa_lab.parent import Parent, check_steps, read_parent, write_parent
from jepa_lab.probes.random_control import no_better_than_random
from jepa_lab.runs.predictions import FILE
from jepa_lab.tracking.base import TRACKERS, FollowedElsewhere, MirrorState, Tracker
from jepa_lab.tracking.credentials import scrub
from jepa_lab.tracking.description import DatasetRecord, RunDescription, RunStatus, flat_params
from jepa_lab.tracking.environment import describe_environment
from jepa_lab.tracking.locks import FileLock
from jepa_lab.tracking.metrics import MetricsWriter, read_metrics
from jepa_lab.tracking.mirror_cursor import sweep_of
from jepa_lab.tracking.required import CheckedTracker
from jepa_lab.tracking.run_folder import RunFolder
from jepa_lab.tracking.store_choice import RecordedPlace
from jepa_lab.training.checkpoint import Checkpoint, CheckpointStore
from jepa_lab.training.checkpointer import Checkpointer, RunIdentity
from jepa_lab.training.compiling import compiler_errors
from jepa_lab.training.devices import Compute, memory_errors, resolve_compute
from jepa_lab.training.followers import UnwrittenCheckpoints, UnwrittenMetrics
from jepa_lab.training.phases import FINAL_MONITORS, LOADING, PREPARING, PhaseSeconds
from jepa_lab.training.pretrain import Pretraining, RunCollapsed
from jepa_lab.training.progress import ProgressDisplay, build_display
from jepa_lab.training.team import Alone, Team
from jepa_lab.training.training_log import MetricsSink, TrainingLog
from jepa_lab.weights.warm_start import WarmStart, read_warm_start

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
        needs_probe: whether its result is of no use without a probe.
    """

    tags: Mapping[str, str]
    params: Mapping[str, str]
    lock_seconds: float = 60.0
    needs_probe: bool = False


def start_run(
    loaded: LoadedPipeline,
    run_root: Path,
    command: Sequence[str],
    member: Membership | None = None,
    team: Team | None = None,
    parent: Parent | None = None,
) -> RunOutcome:
    """Check a pipeline, load its data, and train and probe it in a new run folder.

    Args:
        member: of what it is a part; None for a run of its own.
        team: the processes that train it together, which all call this; by default this one alone.
        parent: the run whose state it continues; None to start anew.
    Raises:
        ConfigError, DataError, DeviceError, RunFolderError: before anything was written.
        RunStopped: a good run was stopped from outside; it can be resumed.
    """
    started = time.monotonic()
    pipeline, team = loaded.pipeline, Alone() if team is None else team
    with unfailing_output(), stoppable(team.stop), ExitStack() as stack:
        with team.reporting():
            check_pipeline(loaded)
            check_team(loaded, team)
            if member is None and team.leads:
                build_tracker(pipeline, None)  # a wrong store is told before anything is written
            if pipeline.training.num_threads is not None:
                torch.set_num_threads(pipeline.training.num_threads)
            with loaded.located("training"):
                compute = team.on_device(resolve_compute(pipeline.training))
        data, probe_data = load_shared_data(loaded, compute.device, None, team, started)
        with team.reporting():
            check_batch(loaded, data)
            check_probe(loaded, probe_data, member)
            first_weights = check_weights(loaded, data, run_root)
            if parent is not None:
                check_steps(parent, pipeline, len(data.train))

        def create() -> RunFolder:
            resolved = dump_pipeline(pipeline)
            folder = RunFolder.create(run_root, pipeline.name, config_digest(pipeline), pipeline.seed, resolved)
            stack.enter_context(locked(folder))
            conditions = describe_environment(command, team.describe(compute))
            folder.write_environment(conditions | {"components": component_origins(pipeline)} | first_weights)
            if parent is not None:
                write_parent(folder, parent)
            return folder

        folder = team.from_leader(create)
        return Run(pipeline, folder, compute, data, probe_data, None, started, member, team).execute()


@contextmanager
def stoppable(stop: StopSignals) -> Iterator[StopSignals]:
    """Ctrl-C, SIGTERM and SIGHUP become errors with their exit code.

    Raises:
        RunInterrupted, RunTerminated: where the run itself has not said so already.
    """
    with stop:
        try:
            yield stop
        except KeyboardInterrupt as error:
            raise interruption(error, "before training started; run the same command again") from None


def interruption(error: KeyboardInterrupt, where: str) -> RunInterrupted:
    """The error that tells how a run was stopped."""
    if isinstance(error, StopRequested) and error.signal != signal.SIGINT:
        return RunTerminated(f"ended by {error.signal.name} {where}", error.signal)
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


def load_shared_data(
    loaded: LoadedPipeline,
    device: torch.device,
    surveys: Path | None,
    team: Team,
    started: float,
) -> tuple[PreparedData, PreparedData]:
    """What is trained on, and what the probe works on.

    The leader comes first: what it downloads, caches or finds out about files, the others need not do again.

    Args:
        surveys: the run's data.json, where it goes on.
        started: time.monotonic() when the command began.
    """
    known, note = ({}, None) if surveys is None else load_surveys(surveys)
    first: list[tuple[PreparedData, PreparedData]] = []

    def lead() -> dict[str, Survey]:
        first.append(load_data(loaded, device, known, team.place.local_size))
        return surveys_of(*first[0])

    with build_display(started) as display:
        display.phase(f"loading {DATASETS.entry_of(loaded.pipeline.data.dataset).name}")
        found = team.from_leader(lead)
        with team.reporting():
            data, probe_data = first[0] if team.leads else load_data(loaded, device, found, team.place.local_size)
    return data if note is None else replace(data, notes=(note, *data.notes)), probe_data


def load_data(
    loaded: LoadedPipeline, device: torch.device, known: Mapping[str, Survey], processes: int
) -> tuple[PreparedData, PreparedData]:
    """What is trained on, and what the probe works on.

    Args:
        known: what was found about files before, by section.
        processes: of the run on this machine.
    """
    pipeline = loaded.pipeline
    with memory_errors(pipeline.training):
        with loaded.located("data"):
            data = prepare_data(pipeline, device, known.get("data"), processes)
        with loaded.located("probe.data"):
            return data, prepare_probe_data(pipeline, data, device, known.get("probe.data"), processes)


def check_probe(loaded: LoadedPipeline, data: PreparedData, member: Membership | None) -> None:
    """Refuse what the probe could not do, before anything is trained.

    Raises:
        DataError: there are no labels where a sweep is decided by a probe, or a class is missing from a split.
        ConfigError: a setting that needs more images.
    """
    with loaded.located("data" if loaded.pipeline.probe.data is None else "probe.data"):
        splits = probe_splits(data)
    if splits is None and member is not None and member.needs_probe:
        raise DataError(
            "the images have no labels, and the sweep is decided by a probe, which needs them; name labelled images "
            "under probe.data, or take a metric such as rankme_end"
        )
    if splits is None:
        refuse_probes_of_maps(loaded)
    else:
        check_probes(loaded, splits)


def check_team(loaded: LoadedPipeline, team: Team) -> None:
    """Every process takes as many images of every part of a batch as the others.

    Raises:
        ConfigError: the batch cannot be divided so.
    """
    training = loaded.pipeline.training
    parts = team.size * training.accumulation_steps
    if training.batch_size % parts:
        raise loaded.error(
            "training.batch_size",
            f"training.batch_size must be a multiple of {parts}, got {training.batch_size}: it is that of all "
            f"{team.size} processes together (torchrun --nproc-per-node), each of which computes its images in "
            f"training.accumulation_steps={training.accumulation_steps} part(s); change one of the three",
            "training.accumulation_steps",
        )
    if team.size > 1 and training.capture == "on":
        raise loaded.error(
            "training.capture",
            f"training.capture=on captures the step of one process, and torchrun has started {team.size}; use "
            "training.capture=auto",
        )
    check_regularizer(loaded, team.size)


def check_weights(loaded: LoadedPipeline, data: PreparedData, run_root: Path) -> dict[str, Any]:
    """Refuse weights that the encoders cannot begin with.

    Returns:
        What environment.json says about them; nothing where the encoders begin at random.
    Raises:
        ConfigError: they cannot be read, or do not fit.
    """
    if loaded.pipeline.encoder.weights is None:
        return {}
    with loaded.located("encoder"):
        warm_start = first_model(loaded.pipeline, data, [run_root])[1]
    assert warm_start is not None, "the pipeline names weights"
    return {"encoder_weights": {"source": warm_start.source, "sha256": warm_start.sha256}}


def first_model(pipeline: Pipeline, data: PreparedData, roots: Sequence[Path]) -> tuple[IJepa, WarmStart | None]:
    """The model at step 0, and the weights that its encoders shall begin with.

    Args:
        roots: folders of run folders, whose names may be given.
    Raises:
        ConfigError: the weights cannot be read, or do not fit.
    """
    model = build_model(pipeline, data.train.images.shape[1])
    return model, read_warm_start(pipeline, model, roots)


def check_batch(loaded: LoadedPipeline, data: PreparedData) -> None:
    batch_size, available = loaded.pipeline.training.batch_size, len(data.train)
    if batch_size > available:
        raise loaded.error(
            "training.batch_size",
            f"training.batch_size must be at most the number of training images, got {batch_size} and {available} "
            "(after the validation split); lower it, or use more images",
        )


def build_tracker(pipeline: Pipeline, folder: RunFolder | None) -> Tracker:
    """The pipeline's tracker, not started.

    Args:
        folder: of the run, or of the sweep: what it recorded decides unless the pipeline names a place. None where it
            is not there yet.
    Raises:
        ConfigError: the environment names a store that is none.
    """
    recorded = None if folder is None else _recorded_place(folder)
    return CheckedTracker(TRACKERS.entry_of(pipeline.tracking).component(pipeline.tracking, recorded))


def _recorded_place(folder: RunFolder) -> RecordedPlace | None:
    """Where the record of a run that is resumed is, or that of the sweep which a new trial is a part of."""
    holders = {"the run folder": folder, "the sweep folder": sweep_of(folder)}
    for holder, each in holders.items():
        if each is not None and each.description.exists():
            settings = each.read_description().tracker
            return None if settings is None else RecordedPlace(settings, holder)
    return None


@dataclass(frozen=True)
class Run:
    """A run whose folder exists.

    Attributes:
        checkpoint: what it goes on from; None to begin at step 0.
        started: time.monotonic() when the command began.
        team: the processes that train together. The leader alone writes the folder.
    """

    pipeline: Pipeline
    folder: RunFolder
    compute: Compute
    data: PreparedData
    probe_data: PreparedData
    checkpoint: Checkpoint | None
    started: float
    member: Membership | None
    team: Team

    def execute(self) -> RunOutcome:
        """Train, probe and write result.json, whatever happens; then let the tracker catch up."""
        return self._lead() if self.team.leads else self._follow()

    def _follow(self) -> RunOutcome:
        with memory_errors(self.pipeline.training):
            self._train_and_probe()
        return self.team.from_leader(self._lead)  # which the leader has come to the end of

    def _lead(self) -> RunOutcome:
        with self.team.reporting():
            tracker = build_tracker(self.pipeline, self.folder)
            if self.member is not None:
                tracker = FollowedElsewhere(tracker)
            self.folder.write_description(self._description(tracker))
            save_surveys(self.folder.path / "data.json", surveys_of(self.data, self.probe_data))
        with self.folder.open_log():
            logger.info("tracking: %s", tracker.describe())
            for note in dict.fromkeys((*self.data.notes, *self.probe_data.notes)):
                logger.warning(note)
            for level, line in self._about_images():
                logger.log(level, line)
            try:
                with self.team.reporting():
                    tracker.start(self.folder)
                with memory_errors(self.pipeline.training):
                    self._train_and_probe()
            except Exception as raised:
                error = plugin_failure(raised) or raised
                message = str(error) if isinstance(error, JepaLabError) else repr(error)
                status: RunStatus = "KILLED" if isinstance(error, RunPruned) else "FAILED"
                self._record_end(status, message, collapsed=isinstance(error, RunCollapsed))
                self._close_after_error(tracker, _TRACKER_TIMEOUT_SECONDS)
                if isinstance(error, PluginError) and error is not raised:
                    logger.critical("a plug-in failed", exc_info=raised)
                    raise PluginError(f"{error}; the traceback is in {self.folder.log}") from raised
                if isinstance(error, JepaLabError):
                    raise
                logger.critical("crashed", exc_info=error)
                raise RunCrashed(self._about_crash(error)) from error
            except BaseException as error:  # Ctrl-C and the like: leave at once, the mirror goes on by itself
                self._record_end("KILLED", str(error) or type(error).__name__)
                self._close_after_error(tracker, 0.0)
                if isinstance(error, KeyboardInterrupt):
                    raise interruption(error, self._how_to_go_on()) from None
                raise
            mirror = tracker.close(_TRACKER_TIMEOUT_SECONDS)
        result = self.folder.read_result()
        assert result is not None, "written by _train_and_probe"
        outcome = RunOutcome(self.folder, result, tracker.describe(), mirror)
        return self.team.from_leader(lambda: outcome)

    def _about_crash(self, error: Exception) -> str:
        """Whose mistake an error is that nobody has foreseen, as far as can be known."""
        what = f"jepa-lab crashed: {type(error).__name__}: {error}"
        foreign = plugin_components(self.pipeline)
        if not foreign:
            return f"{what}. This is a bug in jepa-lab: the traceback is in {self.folder.log}; please report it"
        return (
            f"{what}. Either what {' or '.join(foreign)} gave led to it, or it is a bug in jepa-lab: the traceback is "
            f"in {self.folder.log}. If it happens without plug-ins too, please report it"
        )

    def _description(self, tracker: Tracker) -> RunDescription:
        pipeline = self.pipeline
        config = pipeline.model_dump(mode="json")
        parts = ("masker", "target", "loss", "regularizer", "ema_momentum", "augmentation")
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
        parent = read_parent(self.folder)
        tags |= {} if parent is None else {"parent_run": Path(parent.folder).name, "parent_step": str(parent.step)}
        tags |= {key: json.dumps(values) for key, values in channel_record(self.data.mean, self.data.std).items()}
        dataset = DatasetRecord(tags["dataset"], self.data.source, self.data.digest)
        params = flat_params(config)
        if self.member is not None:
            tags, params = {**tags, **self.member.tags}, {**self.member.params, **params}
        return RunDescription(params, tags, dataset, tracker.settings())

    def _about_images(self) -> list[tuple[int, str]]:
        """The first lines of a run: how many images each split has, and what is to be known about them, as warnings."""
        told = {"images": self.data} | ({} if self.pipeline.probe.data is None else {"probe images": self.probe_data})
        lines = []
        for name, data in told.items():
            lines.append((logging.INFO, f"{name}: {data.counts.sentence()}"))
            lines += [(logging.WARNING, f"note on the {name}: {note}") for note in data.told]
        return [(level, printable(line)) for level, line in lines]

    def _train_and_probe(self) -> None:
        phases, began = PhaseSeconds(), time.monotonic()
        phases.add(LOADING, began - self.started)
        with build_display(self.started) as display, ExitStack() as stack:
            for _, line in self._about_images() if self.team.leads else ():
                display.message(line)
            display.phase("preparing the model and the evaluation")
            with self.team.reporting():
                model = self._build_model()
                online = OnlineEvaluation(self.pipeline, model, self.data, self.probe_data, self.compute)
                images = stack.enter_context(
                    closing(build_batches(self.pipeline, self.data, self.compute.device, self.team))
                )
                metrics = stack.enter_context(self._open_metrics())
            self.team.meet()  # all have come so far: from here on they wait for each other's sums
            with self.team.computing():
                pretraining = self._build_pretraining(model, online, images, metrics, display, phases)
            parent = read_parent(self.folder)
            if self.checkpoint is not None:
                pretraining.checkpointer.restore(self.checkpoint)
            elif parent is not None:
                parent.begin(pretraining.checkpointer)
            first, total = pretraining.state.step, pretraining.timetable.total_steps
            logger.info("training from step %d to %d on %s", first, total, self.team.describe(self.compute))
            if self.team.size > 1 and self.compute.device.type == "cuda":
                logger.info("the step is not captured as a graph: %d processes train together", self.team.size)
            phases.add(PREPARING, time.monotonic() - began)
            with compiler_errors():
                pretraining.run()
            images.close()
            self.team.from_leader(lambda: self._probe(pretraining, online))

    def _build_model(self) -> IJepa:
        """The model of step 0, or one that takes up a checkpoint, which holds what its target has learnt."""
        if self.checkpoint is not None:
            return build_model(self.pipeline, self.data.train.images.shape[1]).to(self.compute.device)
        model, warm_start = first_model(self.pipeline, self.data, [self.folder.path.parent])
        if warm_start is not None:
            warm_start.begin(model)
        fit_target(self.pipeline, model, self.data)
        return model.to(self.compute.device)

    def _open_metrics(self) -> AbstractContextManager[MetricsSink]:
        if not self.team.leads:
            return nullcontext(UnwrittenMetrics())
        return MetricsWriter(self.folder.metrics, 0 if self.checkpoint is None else self.checkpoint.run.metrics_cursor)

    def _probe(self, pretraining: Pretraining, online: OnlineEvaluation) -> None:
        """Probe the trained model, and write result.json."""
        model, figures = pretraining.step.model, self.folder.figures
        announce, phases, state = pretraining.log.display.phase, pretraining.log.phases, pretraining.state
        last = pretraining.timetable.total_steps
        if self.pipeline.monitors.end:
            announce("monitoring the trained encoder")
        with phases.of(FINAL_MONITORS):
            monitored = final_monitors(self.pipeline, model, self.data, self.compute)
        summary, more = final_evaluation(
            self.pipeline,
            model,
            self.probe_data,
            self.compute,
            figures,
            announce,
            phases.of_row,
            self.folder.path / FILE,
        )
        if more["probe"] is not None and (sentence := no_better_than_random(more["probe"])) is not None:
            logger.warning(sentence)
        summary |= monitored | self._training_summary(pretraining, online)
        final = pretraining.checkpointer.store.path(last)
        total = time.monotonic() - self.started
        more |= {
            "best_online_probe": {"step": state.best_step, "accuracy": state.best_online_probe},
            "collapsed": online.collapsed,
            "collapse": {"status": online.verdict.status, "in_words": online.verdict.sentence()},
            "encoder": encoder_record(self.pipeline, len(self.data.mean)),
            "step": {"compiled": pretraining.step.compute.compile, "captured": pretraining.whole_step.captured},
            **self._data_record(),
            "seconds": phases.to_dict(total),
            "total_seconds": total,
        }
        self.folder.write_result("FINISHED", summary, last, final, **more)

    def _data_record(self) -> dict[str, Any]:
        """What result.json says about the images, however the run ended."""
        return {
            **channel_record(self.data.mean, self.data.std),
            **data_record(self.data, self.probe_data),
        }

    def _build_pretraining(
        self,
        model: IJepa,
        online: OnlineEvaluation,
        images: Batches,
        metrics: MetricsSink,
        display: ProgressDisplay,
        phases: PhaseSeconds,
    ) -> Pretraining:
        pipeline, team = self.pipeline, self.team
        timetable = build_timetable(pipeline, images.steps_per_epoch)
        before = None if self.checkpoint is None else self.checkpoint.run.compiled
        compute = self.compute.for_run(pipeline.training, timetable.total_steps, before)
        whole = build_whole_step(pipeline, model, images, self.data.mean, self.data.std, compute, team)
        store = (CheckpointStore if team.leads else UnwrittenCheckpoints)(self.folder.checkpoints)
        return Pretraining(
            timetable=timetable,
            whole_step=whole,
            evaluation=online,
            checkpointer=Checkpointer(store, self._identity(), whole.step, whole.batches, whole.sums, online, metrics),
            log=TrainingLog(timetable, whole.batches.batch_size, metrics, display, whole.sums, phases),
            team=team,
            stop_file=self.folder.stop_file,
            stop_on_collapse=pipeline.training.stop_on_collapse,
        )

    def _identity(self) -> RunIdentity:
        pipeline = self.pipeline
        run_uid = self.folder.read_description().run_uid if self.team.leads else ""  # followers write nothing
        return RunIdentity(pipeline.seed, config_digest(pipeline), dump_pipeline(pipeline), run_uid)

    def _training_summary(self, pretraining: Pretraining, online: OnlineEvaluation) -> dict[str, float | None]:
        """Flat numbers of the training for result.json and the tracker."""
        rows = [row for row in read_metrics(self.folder.metrics) if "monitor/rankme" in row.metrics]
        model = pretraining.step.model
        seconds = pretraining.state.clock.seconds()
        images = pretraining.timetable.total_steps * self.pipeline.training.batch_size
        return {
            "rankme_start": rows[0].metrics["monitor/rankme"],
            "rankme_end": rows[-1].metrics["monitor/rankme"],
            NUM_CURVE_IMAGES: float(len(online.images)),
            "training_seconds": seconds,
            "images_per_second": images / seconds if seconds > 0 else None,
            "collapsed": float(online.collapsed),
            "skipped_steps": float(pretraining.log.sums.skipped_steps()),
            "collapse_warned": float(online.verdict.status == "warned"),
            "encoder_parameters": float(sum(p.numel() for p in model.encoder_parameters())),
            "predictor_parameters": float(sum(p.numel() for p in model.predictor_parameters())),
        }

    def _how_to_go_on(self) -> str:
        steps = CheckpointStore(self.folder.checkpoints).steps()
        saved = f"the last checkpoint is at step {steps[-1]}" if steps else "no step was taken"
        return f"({saved}); resume it with `jepa-lab run --resume {shlex.quote(str(self.folder.path))}`"

    def _record_end(self, status: RunStatus, message: str, collapsed: bool = False) -> None:
        """Write how the run ended, unless the disk is what ended it."""
        steps = CheckpointStore(self.folder.checkpoints).steps()
        metrics = {"collapsed": 1.0} if collapsed else {}
        more = self._data_record() | {"error": scrub(message)} | ({"collapsed": True} if collapsed else {})
        try:
            # torchrun sends SIGTERM to the others as soon as one process has ended with an error.
            with self.team.stop.held():
                self.folder.write_result(status, metrics, steps[-1] if steps else 0, None, **more)
        except JepaLabError as error:
            logger.warning("result.json could not be written: %s", error)

    def _close_after_error(self, tracker: Tracker, timeout_seconds: float) -> None:
        """Let the tracker catch up; what goes wrong there must not hide why the run ended."""
        try:
            tracker.close(timeout_seconds)
        except (JepaLabError, AssertionError, StopRequested) as error:
            logger.warning("the tracker could not be closed: %s", error)
