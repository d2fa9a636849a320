"""References: encoders that a sweep did not train, probed once per validation split beside its arms.

```
references.json          which ones the table shows: those of the ablation file that was given last
references/<digest>/     of one source, named after what the ablation file means, be it there or gone
  <split seed>.json      what the probe of the baseline found on this split
  <split seed>.safetensors   the class that it predicted for every image
```
What was found is kept, whatever becomes of the source: only a reference without it is read.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jepa_lab.config.loading import LoadedPipeline, dump_pipeline
from jepa_lab.errors import ConfigError, JepaLabError, RunFolderError, RunStopped
from jepa_lab.interop.probe_source import check_source, probe_reference
from jepa_lab.interruption import StopSignals
from jepa_lab.reports.content import Reference
from jepa_lab.runs.predictions import RunPredictions, read_predictions
from jepa_lab.sweeps.ablation import AblationFile
from jepa_lab.sweeps.executors.base import Executor
from jepa_lab.sweeps.folder import SweepFolder
from jepa_lab.sweeps.progress import SweepDisplay
from jepa_lab.sweeps.tasks import Reply, Task
from jepa_lab.tracking.atomic import explained_writes, write_text_atomically
from jepa_lab.tracking.locks import FileLock
from jepa_lab.tracking.mlflow_download import SCHEMES
from jepa_lab.tracking.records import read_record, write_record
from jepa_lab.weights.sources.base import SourceContext

_MOST_ENDS = {"died": 2, "interrupted": 10}
"""How often the probe of one reference is begun again after such an end. It saves nothing on its way, so that a time
limit which is too short would interrupt it for ever; preemptions come and go."""
_LIST, _RESULT, _VERSION = "references", "reference", 1


@dataclass(frozen=True)
class PlannedReference:
    """A reference of an ablation file.

    Attributes:
        name: as it is written there. source: the same wherever it is read. place: where it is written.
        digest: of what is meant, which stays the same when a path is gone.
    """

    name: str
    source: str
    place: str
    digest: str

    def folder(self, sweep: SweepFolder) -> Path:
        """Of what was found about it."""
        return _folder(sweep, self.digest)


def references_of(file: AblationFile) -> tuple[PlannedReference, ...]:
    """The references of an ablation file; a path in it is one as seen from the file.

    Raises:
        ConfigError: a path that is there only as seen from the current folder.
    """
    folder = file.path.parent
    return tuple(
        _planned(text, folder, file.place("references", index)) for index, text in enumerate(file.ablation.references)
    )


def _planned(text: str, folder: Path, place: str) -> PlannedReference:
    path = folder / text
    meant = text if text.startswith(SCHEMES) else os.path.normpath(path.absolute())
    is_path = not text.startswith(SCHEMES) and path.exists()
    if not is_path and Path(text).exists():
        raise ConfigError(
            f"reference {text!r} is seen from the folder of this file, and {path} is not there; write the path from "
            "there, or an absolute one",
            place=place,
        )
    # A name in a cache, or nothing: whoever reads it says what is wrong.
    return PlannedReference(text, meant if is_path else text, place, hashlib.sha256(meant.encode()).hexdigest()[:16])


def check_references(
    references: Sequence[PlannedReference], pipelines: Mapping[int, LoadedPipeline], sweep: SweepFolder
) -> None:
    """Refuse a reference that could not be probed, before anything is trained.

    Args:
        pipelines: of the baseline, by the seed of their validation split.
        sweep: perhaps not there yet.
    Raises:
        ConfigError: it cannot be read, or does not fit the images.
    """
    loaded = next(iter(pipelines.values()))
    for reference in references:
        if all(_result(reference.folder(sweep), split).exists() for split in pipelines):
            continue
        try:
            check_source(loaded, reference.source, SourceContext())
        except JepaLabError as error:
            raise ConfigError(f"reference {reference.name!r}: {error}", place=reference.place) from error


class ReferenceProbing:
    """Probes what has not been probed yet, on the slots of the sweep."""

    def __init__(self, sweep: SweepFolder, executor: Executor, stop: StopSignals, display: SweepDisplay) -> None:
        self.sweep, self.executor, self.stop, self.display = sweep, executor, stop, display
        self._ends: Counter[tuple[int, str]] = Counter()  # of tasks, by their numbers and outcomes
        self._busy: set[int] = set()  # tasks that other processes were at work on

    def perform(self, references: Sequence[PlannedReference], pipelines: Mapping[int, LoadedPipeline]) -> bool:
        """Probe every reference on every split; False if a signal stopped it.

        Raises:
            ConfigError, RunStopped: one could not be probed.
        """
        shown = [{"name": each.name, "source": each.source, "digest": each.digest} for each in references]
        if references or _list(self.sweep).exists():
            write_record(_list(self.sweep), _LIST, _VERSION, {"references": shown})
        waiting, is_stopping = deque(self._tasks(references, pipelines)), False
        running: dict[int, tuple[Task, str]] = {}
        while running or (waiting and not is_stopping):
            while not is_stopping and self.executor.capacity() > len(running):
                due = next((each for each in waiting if not self._is_elsewhere(each[0])), None)
                if due is None:
                    break
                waiting.remove(due)
                task, name = due
                self.display.message(f"probing the reference {name}")
                if not self.executor.adopt(task):
                    self.executor.submit(task)
                running[task.number] = (task, name)
            for reply in self.executor.poll(self.executor.look_seconds):
                task, name = running.pop(reply.number)
                if reply.outcome != "finished" and not is_stopping:
                    self._handle(reply, name)
                    waiting.append((task, name))
            for sentence in self.executor.news():
                self.display.message(sentence)
            if self.stop.received is not None and not is_stopping:
                is_stopping = True
                self.executor.cancel(list(running))
        return not is_stopping

    def _is_elsewhere(self, task: Task) -> bool:
        """Whether another process is still at work on a task, as a worker has said."""
        return task.number in self._busy and FileLock(task.claim, f"the reference {task.name}").is_held()

    def _tasks(
        self, references: Sequence[PlannedReference], pipelines: Mapping[int, LoadedPipeline]
    ) -> Iterator[tuple[Task, str]]:
        number = 0
        for reference in references:
            folder = reference.folder(self.sweep)
            for split, loaded in pipelines.items():
                if _result(folder, split).exists():
                    continue
                with explained_writes(folder):
                    folder.mkdir(parents=True, exist_ok=True)
                config = folder / f"{split}.yaml"
                write_text_atomically(config, dump_pipeline(loaded.pipeline))
                name = f"reference-{reference.digest}-{split}"
                task = Task(
                    number,
                    name,
                    config.absolute(),
                    folder.absolute(),
                    self.sweep.claim(name),
                    {},
                    {},
                    encoder=reference.source,
                    folder=Path.cwd(),
                )
                yield task, reference.name
                number += 1

    def _handle(self, reply: Reply, name: str) -> None:
        """A worker that was killed is replaced; anything else would happen again.

        Raises:
            ConfigError, RunStopped: it is not tried again.
        """
        if reply.outcome == "busy":
            self._busy.add(reply.number)
            self.display.message(f"the reference {name} is being probed by another process; waiting for it to end")
            return
        self._ends[reply.number, reply.outcome] += 1
        if self._ends[reply.number, reply.outcome] <= _MOST_ENDS.get(reply.outcome, 0):
            return
        message = f"the reference {name} could not be probed: {reply.message}"
        raise ConfigError(message) if reply.outcome in ("failed", "refused") else RunStopped(message)


def perform_reference(loaded: LoadedPipeline, source: str, folder: Path) -> None:
    """Probe a reference on the split of a pipeline, in a worker, and keep what was found."""
    split = loaded.pipeline.data.split_seed
    found = probe_reference(loaded, source, SourceContext(), folder / f"{split}.safetensors")
    write_record(_result(folder, split), _RESULT, _VERSION, {**found.content, "notes": list(found.notes)})


def reference_is_probed(loaded: LoadedPipeline, folder: Path) -> bool:
    """Whether what was found about a reference, on the split of a pipeline, is kept already."""
    return _result(folder, loaded.pipeline.data.split_seed).exists()


def read_references(sweep: SweepFolder, plan: Mapping[str, Any], seeds: Sequence[int]) -> tuple[Reference, ...]:
    """The references of a sweep's table, as far as they have been probed.

    Args:
        plan: content of plan.json. seeds: of the table.
    Raises:
        RunFolderError: a file is damaged.
    """
    if not _list(sweep).exists():
        return ()
    shown = read_record(_list(sweep), _LIST, _VERSION)["references"]
    return tuple(_read(_folder(sweep, each["digest"]), each, _splits(plan, seeds)) for each in shown)


def kept_references(folder: Path, seeds: Sequence[int]) -> tuple[Reference, ...]:
    """The references of a sweep that was recorded somewhere; none where its folder is not on this machine."""
    sweep = SweepFolder(folder)
    return read_references(sweep, sweep.read_plan(), seeds) if sweep.plan.is_file() else ()


def _splits(plan: Mapping[str, Any], seeds: Sequence[int]) -> dict[int, int]:
    """Seed -> seed of its validation split."""
    own = dict(zip(plan["seeds"], plan.get("split_seeds", ()), strict=False))
    return {seed: own.get(seed, plan["baseline_config"]["data.split_seed"]) for seed in seeds}


def _read(folder: Path, shown: Mapping[str, str], splits: Mapping[int, int]) -> Reference:
    records = {
        split: read_record(_result(folder, split), _RESULT, _VERSION)
        for split in dict.fromkeys(splits.values())
        if _result(folder, split).exists()
    }
    kept = {split: _predictions(folder, record) for split, record in records.items()}
    notes = dict.fromkeys(note for record in records.values() for note in record["notes"])
    return Reference(
        name=shown["name"],
        source=shown["source"],
        splits={seed: split for seed, split in splits.items() if split in records},
        metrics={split: record["metrics"] for split, record in records.items()},
        predictions={split: found for split, found in kept.items() if found is not None},
        notes=tuple(notes),
    )


def _predictions(folder: Path, record: Mapping[str, Any]) -> RunPredictions | None:
    """None where the file is not there: the interval over images is then left out, as for a run without it."""
    if "predictions" not in record:
        return None
    try:
        return read_predictions(folder, record["predictions"])
    except RunFolderError:
        return None


def _list(sweep: SweepFolder) -> Path:
    return sweep.path / "references.json"


def _folder(sweep: SweepFolder, digest: str) -> Path:
    return sweep.path / "references" / digest


def _result(folder: Path, split: int) -> Path:
    return folder / f"{split}.json"
