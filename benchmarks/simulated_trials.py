"""Workers that do not train: each trial of a sweep becomes the run folder of a real run with other numbers.

The truth is known: an arm has an effect of its own, a seed another one, and every image is predicted right with a
probability that both shift. Predictions, accuracies and curves agree with each other, as those of a real run do.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from jepa_lab.registry import ComponentParams
from jepa_lab.runs.predictions import RunPredictions, predictions_of_run, write_predictions
from jepa_lab.sweeps.executors.base import Executor, Surroundings
from jepa_lab.sweeps.resources import Needs
from jepa_lab.sweeps.tasks import Reply, Task
from jepa_lab.sweeps.watch import ONLINE_PROBE
from jepa_lab.tracking.description import RunDescription, TrackerSettings
from jepa_lab.tracking.metrics import MetricsWriter, read_metrics
from jepa_lab.tracking.run_folder import RunFolder

ARM_EFFECT, SEED_EFFECT = 0.04, 0.02
"""Standard deviations, in shares of right images."""
EPOCHS = 20
LOOKS = 4
"""Of the parent at each trial while it runs. Each costs the same, whatever the sweep's size."""


class Template:
    """A real run that has finished, and what a simulated one takes from it.

    Args:
        path: its folder.
    """

    def __init__(self, path: Path) -> None:
        self.folder = RunFolder.open(path)
        result, predictions = self.folder.read_result(), predictions_of_run(self.folder)
        assert result is not None, f"{path} has not finished"
        assert isinstance(predictions, RunPredictions), f"{path} kept no predictions"
        self.result, self.predictions = result, predictions
        self.row: dict[str, float] = {}
        for row in read_metrics(self.folder.metrics):
            self.row |= {name: value for name, value in row.metrics.items() if value is not None}
        self.checkpoint = str(result["final_checkpoint"])
        self.description, self.environment = self.folder.read_description(), self.folder.read_environment()


@dataclass
class _Work:
    """A trial that a simulated worker has begun."""

    task: Task
    folder: RunFolder
    truth: float
    metrics: MetricsWriter
    random: np.random.Generator
    epoch: int = 0

    def log(self, until: int, row: Mapping[str, float]) -> None:
        """The rows of the next epochs."""
        for epoch in range(self.epoch, until):
            jitter = {name: value * self.random.normal(1, 0.05) for name, value in row.items()}
            jitter[ONLINE_PROBE] = self.truth * (1 - 0.5 * 0.8**epoch)
            self.metrics.append(epoch, float(epoch), jitter)
        self.epoch = until


@dataclass
class SimulatedWorker:
    """Writes run folders; `cpu` and `wall` are the seconds that it took, which are not the parent's.

    Args:
        tracker: where a mirror would send the trials; None for none.
    """

    template: Template
    tracker: TrackerSettings | None
    cpu: float = field(default=0.0, init=False)
    wall: float = field(default=0.0, init=False)

    def begin(self, task: Task) -> _Work:
        """Make the run folder, with all that is there before the first step."""
        # Of the name of its lock: to read the configuration, as a real worker does, would take most of the time.
        name, digest, seed_part = task.claim.stem.rsplit("-", 2)
        seed = seed_part.removeprefix("s")
        folder = RunFolder.create(task.runs, name, digest, int(seed), task.config.read_text(encoding="utf-8"))
        before = self.template.description
        params = {**before.params, **task.params, "seed": seed, "name": name}
        tags = {**before.tags, **task.tags, "seed": seed, "config_digest": digest}
        folder.write_description(RunDescription(params, tags, before.dataset, self.tracker))
        folder.write_environment(self.template.environment)
        truth = 0.5 + ARM_EFFECT * _draw(task.params["arm"]) + SEED_EFFECT * _draw(seed)
        random = np.random.default_rng(int(_hash(f"{digest} {seed}")[:8], 16))
        return _Work(task, folder, truth, MetricsWriter(folder.metrics, None), random)

    def finish(self, work: _Work) -> None:
        """Write everything that a run leaves at its end."""
        folder, template = work.folder, self.template
        work.log(EPOCHS, template.row)
        work.metrics.close()
        predictions = self._predictions(work)
        metrics = {name: value * work.random.normal(1, 0.02) for name, value in template.result["metrics"].items()}
        for name in predictions.metrics:
            scored = predictions.scored(name)
            assert scored is not None, "it is one of them"
            metrics[name] = float(scored.correct.mean())
        metrics["collapsed"] = 0.0
        record = write_predictions(folder.path / template.result["predictions"]["file"], predictions)
        checkpoint = folder.path / template.checkpoint
        checkpoint.mkdir()
        weights = template.folder.path / template.checkpoint / "model.safetensors"
        for place, file in [
            (checkpoint, weights),
            *((folder.figures, each) for each in template.folder.figures.iterdir()),
        ]:
            (place / file.name).hardlink_to(file.resolve())  # nobody changes them
        core = {"format", "format_version", "run_uid", "tracking", "status", "ended", "last_step", "sha256"}
        more = {key: value for key, value in template.result.items() if key not in core}
        more |= {"predictions": record, "collapsed": False}
        del more["final_checkpoint"], more["metrics"]
        folder.write_result("FINISHED", metrics, EPOCHS - 1, checkpoint, **more)

    def _predictions(self, work: _Work) -> RunPredictions:
        """As many right images as the truth says; hard images are hard in every run."""
        tensors: dict[str, Any] = dict(self.template.predictions.tensors)
        for name in self.template.predictions.metrics.values():
            split, row = name.split("/")[:2]
            labels = tensors[f"{split}/labels"]
            difficulty = np.random.default_rng(len(labels)).normal(0, 0.2, len(labels))
            chance = work.truth if row == "trained" else 0.4
            is_right = work.random.random(tensors[name].shape) < np.clip(chance + difficulty, 0.02, 0.98)
            wrong = (labels + 1) % len(self.template.predictions.class_names)
            tensors[name] = np.where(is_right, labels, wrong).astype(labels.dtype)
        return replace(self.template.predictions, tensors=tensors)


class SimulatedExecutor(Executor):
    """As many slots as asked for, all in this process; each poll brings every trial on, and one to its end."""

    def __init__(self, around: Surroundings, worker: SimulatedWorker, slots: int) -> None:
        super().__init__(ComponentParams(), around)
        self.worker, self.slots = worker, slots
        self._work: deque[_Work] = deque()

    @staticmethod
    def planned_slots(params: ComponentParams, needs: Needs) -> int:
        return 1

    @staticmethod
    def shares_gpus(params: ComponentParams, needs: Needs) -> bool:
        return False

    @classmethod
    def check_machine(cls, params: ComponentParams, needs: Needs) -> None:
        return None

    def capacity(self) -> int:
        return self.slots

    def submit(self, task: Task) -> None:
        with _Clocked(self.worker):
            self._work.append(self.worker.begin(task))

    def adopt(self, task: Task) -> bool:
        return False

    def place(self, number: int) -> str:
        return f"slot {number % self.slots}"

    def poll(self, seconds: float) -> list[Reply]:
        with _Clocked(self.worker):
            for place, work in enumerate(self._work):
                work.log(max(work.epoch, EPOCHS * (self.slots - place) // self.slots), self.worker.template.row)
            done = self._work.popleft()
            self.worker.finish(done)
            return [Reply(done.task.number, "finished", "")]

    def cancel(self, numbers: Collection[int]) -> None:
        return None

    def give_more_memory(self, number: int) -> str | None:
        return None

    def close(self) -> None:
        return None


class _Clocked:
    """Adds the seconds of its block to those of a worker."""

    def __init__(self, worker: SimulatedWorker) -> None:
        self._worker = worker

    def __enter__(self) -> None:
        self._cpu, self._wall = time.process_time(), time.perf_counter()

    def __exit__(self, *error: object) -> None:
        self._worker.cpu += time.process_time() - self._cpu
        self._worker.wall += time.perf_counter() - self._wall


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _draw(text: str) -> float:
    """A standard normal number that is always the same for a text; 0 for the baseline."""
    if re.fullmatch("base|baseline|0", text):
        return 0.0
    return float(np.random.default_rng(int(_hash(text)[:8], 16)).normal())
