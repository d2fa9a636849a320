"""What a run does: train its model, then probe it, write result.json and draw its figures."""

from __future__ import annotations

import logging
import shlex
import time
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from jepa_lab.build import build_batches, build_model, build_timetable, build_whole_step, fit_target
from jepa_lab.composition.banner import banner
from jepa_lab.composition.figures import draw_figures
from jepa_lab.composition.first_weights import first_model
from jepa_lab.composition.parts import RunParts
from jepa_lab.config.loading import config_digest, dump_pipeline
from jepa_lab.data.order import Batches
from jepa_lab.errors import JepaLabError
from jepa_lab.evaluation import OnlineEvaluation, encoder_record, final_evaluation, final_monitors
from jepa_lab.models.ijepa import IJepa
from jepa_lab.monitors.base import NUM_CURVE_IMAGES
from jepa_lab.parent import read_parent
from jepa_lab.probes.random_control import no_better_than_random
from jepa_lab.runs.predictions import FILE
from jepa_lab.tables.terminal import listing_lines
from jepa_lab.tracking.metrics import MetricsWriter, read_metrics
from jepa_lab.training.checkpoint import CheckpointStore
from jepa_lab.training.checkpointer import Checkpointer, RunIdentity
from jepa_lab.training.compiling import compiler_errors
from jepa_lab.training.followers import UnwrittenCheckpoints, UnwrittenMetrics
from jepa_lab.training.phases import FIGURES, FINAL_MONITORS, LOADING, PREPARING, PhaseSeconds
from jepa_lab.training.pretrain import Pretraining
from jepa_lab.training.progress import ProgressDisplay, build_display
from jepa_lab.training.training_log import MetricsSink, TrainingLog

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Work:
    """The work of a run: train its model, then probe it, write result.json and draw its figures."""

    parts: RunParts

    def execute(self) -> JepaLabError | None:
        """Do it all.

        Returns:
            What to tell about figures that could not be drawn, where the run itself has finished.
        """
        parts = self.parts
        phases, began = PhaseSeconds(), time.monotonic()
        phases.add(LOADING, began - parts.started)
        with build_display(parts.started) as display, ExitStack() as stack:
            for _, line in parts.about_images() if parts.team.leads else ():
                display.message(line)
            display.phase("preparing the model and the evaluation")
            with parts.team.reporting():
                model = self._build_model()
                online = OnlineEvaluation(parts.pipeline, model, parts.data, parts.probe_data, parts.compute)
                images = stack.enter_context(
                    closing(build_batches(parts.pipeline, parts.data, parts.compute.device, parts.team))
                )
                metrics = stack.enter_context(self._open_metrics())
            parts.team.meet()  # all have come so far: from here on they wait for each other's sums
            with parts.team.computing():
                pretraining = self._build_pretraining(model, online, images, metrics, display, phases)
            parent = read_parent(parts.folder)
            if parts.checkpoint is not None:
                pretraining.checkpointer.restore(parts.checkpoint)
            elif parent is not None:
                parent.begin(pretraining.checkpointer)
            first, total = pretraining.state.step, pretraining.timetable.total_steps
            logger.info("training from step %d to %d on %s", first, total, parts.team.describe(parts.compute))
            if parts.team.size > 1 and parts.compute.device.type == "cuda":
                logger.info("the step is not captured as a graph: %d processes train together", parts.team.size)
            if parts.team.leads:
                for line in listing_lines(banner(parts, pretraining), Console().width):
                    display.message(line)
            phases.add(PREPARING, time.monotonic() - began)
            with compiler_errors():
                pretraining.run()
            images.close()
            return parts.team.from_leader(lambda: self._finish(pretraining, online))

    def _build_model(self) -> IJepa:
        """The model of step 0, or one that takes up a checkpoint, which holds what its target has learnt."""
        parts = self.parts
        if parts.checkpoint is not None:
            return build_model(parts.pipeline, parts.data.train.images.shape[1]).to(parts.compute.device)
        model, warm_start = first_model(parts.pipeline, parts.data, [parts.folder.path.parent])
        if warm_start is not None:
            warm_start.begin(model)
        fit_target(parts.pipeline, model, parts.data)
        return model.to(parts.compute.device)

    def _open_metrics(self) -> AbstractContextManager[MetricsSink]:
        parts = self.parts
        if not parts.team.leads:
            return nullcontext(UnwrittenMetrics())
        return MetricsWriter(
            parts.folder.metrics, 0 if parts.checkpoint is None else parts.checkpoint.run.metrics_cursor
        )

    def _finish(self, pretraining: Pretraining, online: OnlineEvaluation) -> JepaLabError | None:
        """Probe the trained model and write result.json; then draw the figures of a run that is no trial."""
        parts, phases, last = self.parts, pretraining.log.phases, pretraining.timetable.total_steps
        summary, more = self._probe(pretraining, online)
        final = pretraining.checkpointer.store.path(last)

        def write(**about_figures: Any) -> None:
            total = time.monotonic() - parts.started
            seconds = {"seconds": phases.to_dict(total), "total_seconds": total}
            parts.folder.write_result("FINISHED", summary, last, final, **more, **seconds, **about_figures)

        write()
        if parts.member is not None:
            return None
        pretraining.log.display.phase("drawing figures")
        with phases.of(FIGURES):
            figures = draw_figures(parts, pretraining.step.model, online)
        write(figures=figures.record())
        again = f"`jepa-lab report {shlex.quote(str(parts.folder.path))}` draws the figures again"
        return figures.error(parts.folder.log, f"The run has finished and its result is complete; {again}")

    def _probe(
        self, pretraining: Pretraining, online: OnlineEvaluation
    ) -> tuple[dict[str, float | None], dict[str, Any]]:
        """Probe the trained model: flat numbers, and what else result.json says."""
        parts = self.parts
        model, figures = pretraining.step.model, parts.folder.figures
        announce, phases, state = pretraining.log.display.phase, pretraining.log.phases, pretraining.state
        if parts.pipeline.monitors.end:
            announce("monitoring the trained encoder")
        with phases.of(FINAL_MONITORS):
            monitored = final_monitors(parts.pipeline, model, parts.data, parts.compute)
        summary, more = final_evaluation(
            parts.pipeline,
            model,
            parts.probe_data,
            parts.compute,
            figures,
            announce,
            phases.of_row,
            parts.folder.path / FILE,
            parts.member is None,
        )
        if more["probe"] is not None and (sentence := no_better_than_random(more["probe"])) is not None:
            logger.warning(sentence)
        summary |= monitored | self._training_summary(pretraining, online)
        more |= {
            "best_online_probe": {"step": state.best_step, "accuracy": state.best_online_probe},
            "collapsed": online.collapsed,
            "collapse": {"status": online.verdict.status, "in_words": online.verdict.sentence()},
            "encoder": encoder_record(parts.pipeline, len(parts.data.mean)),
            "step": {"compiled": pretraining.step.compute.compile, "captured": pretraining.whole_step.captured},
            **parts.data_record(),
        }
        return summary, more

    def _build_pretraining(
        self,
        model: IJepa,
        online: OnlineEvaluation,
        images: Batches,
        metrics: MetricsSink,
        display: ProgressDisplay,
        phases: PhaseSeconds,
    ) -> Pretraining:
        parts = self.parts
        pipeline, team = parts.pipeline, parts.team
        timetable = build_timetable(pipeline, images.steps_per_epoch)
        before = None if parts.checkpoint is None else parts.checkpoint.run.compiled
        compute = parts.compute.for_run(pipeline.training, timetable.total_steps, before)
        whole = build_whole_step(pipeline, model, images, parts.data.mean, parts.data.std, compute, team)
        store = (CheckpointStore if team.leads else UnwrittenCheckpoints)(parts.folder.checkpoints)
        return Pretraining(
            timetable=timetable,
            whole_step=whole,
            evaluation=online,
            checkpointer=Checkpointer(store, self._identity(), whole.step, whole.batches, whole.sums, online, metrics),
            log=TrainingLog(timetable, whole.batches.batch_size, metrics, display, whole.sums, phases),
            team=team,
            stop_file=parts.folder.stop_file,
            stop_on_collapse=pipeline.training.stop_on_collapse,
        )

    def _identity(self) -> RunIdentity:
        parts = self.parts
        pipeline = parts.pipeline
        run_uid = parts.folder.read_description().run_uid if parts.team.leads else ""  # followers write nothing
        return RunIdentity(pipeline.seed, config_digest(pipeline), dump_pipeline(pipeline), run_uid)

    def _training_summary(self, pretraining: Pretraining, online: OnlineEvaluation) -> dict[str, float | None]:
        """Flat numbers of the training for result.json and the tracker."""
        rows = [row for row in read_metrics(self.parts.folder.metrics) if "monitor/rankme" in row.metrics]
        model = pretraining.step.model
        seconds = pretraining.state.clock.seconds()
        images = pretraining.timetable.total_steps * self.parts.pipeline.training.batch_size
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
