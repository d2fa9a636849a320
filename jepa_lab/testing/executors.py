"""What every executor of sweeps keeps."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import pytest

from jepa_lab.config.loading import LoadedPipeline, dump_pipeline, load_pipeline
from jepa_lab.config.shipped import shipped_files
from jepa_lab.registry import ComponentParams, Entry
from jepa_lab.resume import find_finished, find_runs, run_stem
from jepa_lab.sweeps.executors.base import Executor, Surroundings
from jepa_lab.sweeps.folder import SweepFolder
from jepa_lab.sweeps.resources import Needs, Resources
from jepa_lab.sweeps.tasks import Reply, Task
from jepa_lab.testing.components import ComponentContract
from jepa_lab.tracking.locks import FileLock

SMALL = (
    "data.max_images=200",
    "encoder.size={name: custom, embed_dim: 16, depth: 1, num_heads: 2}",
    "predictor.size={name: custom, embed_dim: 8, depth: 1, num_heads: 2}",
    "training={epochs: 1, batch_size: 24, device: cpu, num_threads: 1}",
    "probe={every_epochs: 1, method: {name: logistic, c_grid: [0.1]}, additional: []}",
    "monitors={end: []}",
    "tracking=none",
)
"""A run of a second."""


class ExecutorContract(ComponentContract):
    """Tests of an `Executor`, on the engine itself: with the settings under test it must be there.

    Attributes:
        patience_seconds: after which a task must have replied.
    """

    patience_seconds: ClassVar[float] = 120.0
    needs = Needs(Resources(), on_gpu=False)

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Iterator[SweepFolder]:
        """The folder of a sweep, locked as its parent locks it."""
        folder = SweepFolder.open_or_create(tmp_path / "sweeps", "sweep", "name: sweep\n", {"name": "sweep"})
        with folder.lock() as lock:
            lock.acquire(0)
            yield folder

    @pytest.fixture
    def executor(self, entry: Entry[Executor], params: ComponentParams, folder: SweepFolder) -> Iterator[Executor]:
        """The executor at work for that sweep."""
        executor = entry.component(params, Surroundings(folder, folder.path, self.needs))
        yield executor
        executor.close()

    def test_what_is_planned_is_said_before_anything_starts(
        self, entry: Entry[Executor], params: ComponentParams
    ) -> None:
        assert entry.component.planned_slots(params, self.needs) >= 1
        assert entry.component.shares_gpus(params, self.needs) is False
        assert entry.component.check_machine(params, self.needs) is None

    def test_a_task_has_one_reply_and_one_that_is_told_to_stop_saves_its_state(
        self, executor: Executor, folder: SweepFolder
    ) -> None:
        short = pipeline(0)
        assert executor.capacity() >= 1
        assert not executor.adopt(task_of(folder, short, 0))
        executor.submit(task_of(folder, short, 0))
        assert executor.place(0).strip()
        assert self._replies(executor) == [Reply(0, "finished", "")]
        assert find_finished(folder.trials, short.pipeline) is not None
        assert executor.poll(0.1) == []
        long = pipeline(1, "training.epochs=100000", "training.checkpoint_every_steps=10")
        executor.submit(task_of(folder, long, 1))
        wait_for_steps(folder, long, self.patience_seconds)
        executor.cancel([1])
        assert [(reply.number, reply.outcome) for reply in self._replies(executor)] == [(1, "interrupted")]
        assert list(find_runs(folder.trials, long.pipeline)[0].path.glob("checkpoints/*"))

    def test_closing_ends_what_runs(self, executor: Executor, folder: SweepFolder) -> None:
        long = pipeline(2, "training.epochs=100000")
        task = task_of(folder, long, 2)
        executor.submit(task)
        wait_for_steps(folder, long, self.patience_seconds)
        assert FileLock(task.claim, "the trial").is_held()
        executor.close()
        deadline = time.monotonic() + self.patience_seconds
        while FileLock(task.claim, "the trial").is_held():
            assert time.monotonic() < deadline, "its worker is still at work on the trial"
            time.sleep(0.1)
        assert find_finished(folder.trials, long.pipeline) is None

    def _replies(self, executor: Executor) -> Sequence[Reply]:
        deadline = time.monotonic() + self.patience_seconds
        while time.monotonic() < deadline:
            replies = executor.poll(0.5)
            if replies:
                return replies
        raise AssertionError(f"no reply after {self.patience_seconds:g} s")


def pipeline(seed: int, *overrides: str) -> LoadedPipeline:
    """A pipeline that trains in a second, unless the overrides say otherwise."""
    return load_pipeline(shipped_files("pipeline")["digits"], [*SMALL, *overrides, f"seed={seed}"])


def task_of(folder: SweepFolder, loaded: LoadedPipeline, number: int) -> Task:
    """The task that the parent of a sweep makes for a trial."""
    config = folder.config("arm", number)
    config.write_text(dump_pipeline(loaded.pipeline), encoding="utf-8")
    claim, runs = folder.claim(run_stem(loaded.pipeline)), folder.trials.resolve()
    return Task(number, config.stem, config.resolve(), runs, claim, {}, {}, folder=Path(os.getcwd()))


def wait_for_steps(folder: SweepFolder, loaded: LoadedPipeline, seconds: float) -> None:
    """Until a trial has written numbers of its training."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if any(
            run.metrics.exists() and run.metrics.stat().st_size for run in find_runs(folder.trials, loaded.pipeline)
        ):
            return
        time.sleep(0.1)
    raise AssertionError(f"the trial has not begun to train after {seconds:g} s")
