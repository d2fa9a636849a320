"""One stage of `benchmarks.sweep_scale`, in a process of its own: prints its seconds and its memory as JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import wraps
from pathlib import Path
from typing import Any
from unittest.mock import patch

import click

from benchmarks.simulated_trials import SimulatedExecutor, SimulatedWorker, Template
from jepa_lab.interruption import StopSignals
from jepa_lab.reports.report import print_table, write_report
from jepa_lab.sweeps.engine import Engine, EngineChoice, choose_engine
from jepa_lab.sweeps.executors.base import Executor, Surroundings
from jepa_lab.sweeps.folder import SweepFolder
from jepa_lab.sweeps.plan import Plan, load_plan
from jepa_lab.sweeps.results import report_input
from jepa_lab.sweeps.search_study import SearchStudy
from jepa_lab.sweeps.studies import open_studies
from jepa_lab.sweeps.study import Study, TableStudy
from jepa_lab.sweeps.sweep import Sweep, SweepRecord, SweepSettings, baseline_pipeline, sweep_folder
from jepa_lab.tracking.base import TRACKERS
from jepa_lab.tracking.mirror_cursor import mirror_state
from jepa_lab.tracking.mlflow_tracker import MlflowTracker

SLOTS = 8


@dataclass(frozen=True)
class Scene:
    """What a stage works on.

    Attributes:
        ablation: file. root: of the sweep folders. template: run folder of a real run. storage: Optuna URL.
    """

    ablation: Path
    root: Path
    template: Path
    storage: str | None

    def plan(self) -> Plan:
        return load_plan(self.ablation)

    def folder(self) -> SweepFolder:
        (folder,) = self.root.iterdir()
        return SweepFolder.open(folder)


@dataclass
class Measured:
    """What a stage took.

    Attributes:
        cpu, wall: seconds by part. peak_mib: memory beyond that before the stage. sizes: bytes, or numbers of things.
    """

    cpu: dict[str, float] = field(default_factory=dict)
    wall: dict[str, float] = field(default_factory=dict)
    peak_mib: float = 0.0
    sizes: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Add the seconds of a block."""
        cpu, wall = time.process_time(), time.perf_counter()
        try:
            yield
        finally:
            self.cpu[name] = self.cpu.get(name, 0.0) + time.process_time() - cpu
            self.wall[name] = self.wall.get(name, 0.0) + time.perf_counter() - wall

    def clock_methods(self, name: str, kinds: tuple[type, ...]) -> None:
        """Count the outermost calls of the public methods of some classes as a part."""
        depth = [0]

        def clocked(method: Callable[..., Any]) -> Callable[..., Any]:
            @wraps(method)
            def call(*arguments: Any, **named: Any) -> Any:
                if depth[0]:
                    return method(*arguments, **named)
                depth[0] += 1
                try:
                    with self.part(name):
                        return method(*arguments, **named)
                finally:
                    depth[0] -= 1

            return call

        for kind in kinds:
            for attribute, method in list(vars(kind).items()):
                if callable(method) and not attribute.startswith("_") and not isinstance(method, type):
                    setattr(kind, attribute, clocked(method))


@dataclass(frozen=True)
class _SimulatedEngine(Engine):
    """An engine whose workers write run folders without training."""

    worker: SimulatedWorker

    def build(self, folder: SweepFolder, logs: Path | None = None) -> Executor:
        return SimulatedExecutor(Surroundings(folder, folder.path, self.needs), self.worker, SLOTS)


def plan(scene: Scene, found: Measured) -> None:
    """Validate every arm."""
    with found.part("plan"):
        scene.plan()


def sweep(scene: Scene, found: Measured) -> None:
    """The parent: enqueue, run and tell all trials; a second time it finds that all are over."""
    plan = scene.plan()
    folder = sweep_folder(plan, scene.ablation.read_text(), scene.root)
    tracking = baseline_pipeline(plan).tracking
    settings = None
    if TRACKERS.entry_of(tracking).name == "mlflow":
        with patch.object(MlflowTracker, "start"):  # its process would send what `mirror` is to measure
            settings = SweepRecord(plan, folder, []).tracker.settings()
    worker = SimulatedWorker(Template(scene.template), settings)
    engine = choose_engine(plan.engine, EngineChoice(), on_gpu=False)
    simulated = _SimulatedEngine(engine.params, engine.needs, worker)
    found.clock_methods("study", (Study, TableStudy, SearchStudy))
    with found.part("parent"):
        performed = Sweep(plan, folder, SweepSettings(scene.root, scene.storage, simulated, []), StopSignals())
        assert performed.perform()
    found.cpu["parent"] -= worker.cpu
    found.wall["parent"] -= worker.wall
    found.cpu["worker"], found.wall["worker"] = worker.cpu, worker.wall
    found.sizes["journal"] = folder.journal.stat().st_size if folder.journal.exists() else 0


def again(scene: Scene, found: Measured) -> None:
    """The same command again, with nothing left to do."""
    sweep(scene, found)


def report(scene: Scene, found: Measured) -> None:
    """The report, and what the terminal shows."""
    folder = scene.folder()
    with found.part("report"):
        with found.part("report: read"):
            content = report_input(folder, open_studies(folder, scene.storage))
        with found.part("report: write"):
            write_report(content, folder.report)
    with found.part("table in the terminal"):
        print_table(content)
    for name in ("report.html", "table.md", "trials.csv"):
        found.sizes[name] = (folder.report / name).stat().st_size


def mirror(scene: Scene, found: Measured) -> None:
    """All records to MLflow, in this process; then what the parent asks at its end."""
    from jepa_lab.tracking.mlflow_sweep import SweepMirror

    record = scene.folder().record
    if not record.result.exists():
        record.write_result("FINISHED", {}, 0)
    found_mirror = SweepMirror(record)
    with found.part("mirror"):
        found_mirror.push(ended=True)
    with found.part("mirror: nothing new"):
        found_mirror.push(ended=True)
    with found.part("mirror: state"):
        assert mirror_state(record).complete


STAGES: dict[str, Callable[[Scene, Measured], None]] = {
    stage.__name__: stage for stage in (plan, sweep, again, report, mirror)
}


def _memory_mib(field_name: str) -> float:
    """A field of this process's status, such as VmHWM, the highest resident memory since it was reset."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field_name))
    return int(line.split()[1]) / 1024


@click.command()
@click.argument("stage", type=click.Choice(list(STAGES)))
@click.argument("ablation", type=click.Path(path_type=Path))
@click.argument("root", type=click.Path(path_type=Path))
@click.argument("template", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--storage")
def main(stage: str, ablation: Path, root: Path, template: Path, out: Path, storage: str | None) -> None:
    """Measure one stage."""
    found = Measured()
    Path("/proc/self/clear_refs").write_text("5")
    before = _memory_mib("VmRSS")
    STAGES[stage](Scene(ablation, root, template, storage), found)
    found.peak_mib = _memory_mib("VmHWM") - before
    out.write_text(json.dumps(asdict(found)))


if __name__ == "__main__":
    main()
