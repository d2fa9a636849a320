"""What probes found on raw pixels: the same for every run on the same images, so it is measured once and kept.

```
<cache>/raw-pixels/<key>.json   the outcome of one probe, with all that it depends on
<cache>/raw-pixels/<key>.lock   held while the entry is read or measured
```
The folder is that of the image cache. Deleting entries costs nothing but the time to measure again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from jepa_lab import __version__
from jepa_lab.data.cache import cache_folder
from jepa_lab.errors import ConfigError, JepaLabError, RunFolderError, RunStopped
from jepa_lab.probes.base import Probe, ProbeOutcome, Score
from jepa_lab.probes.predictions import Predictions
from jepa_lab.tracking.atomic import explained_writes
from jepa_lab.tracking.locks import FileLock
from jepa_lab.tracking.records import read_record, record_as, write_record

logger = logging.getLogger(__name__)

KIND = "raw pixels"
VERSION = 3
_PACKAGES = ("numpy", "scikit-learn", "scipy", "torch")


@dataclass(frozen=True)
class _Record:
    """The content of an entry.

    Attributes:
        key: all that the outcome depends on.
        predictions: as `Predictions.to_dict`, by the key of their score.
    """

    key: dict[str, Any]
    scores: tuple[Score, ...]
    details: dict[str, Any]
    notes: tuple[str, ...]
    choice: str
    predictions: dict[str, dict[str, Any]]


@dataclass(frozen=True)
class KeptOutcomes:
    """The outcomes on raw pixels of one division of one data set.

    Args:
        images: all that tells these images, their splits and their labels from others, as JSON values.
        conditions: what else the numbers depend on: the device and the arrays that they are computed with.
        seed: of the run.
    """

    images: Mapping[str, Any]
    conditions: Mapping[str, Any]
    seed: int

    def of(self, name: str, probe: Probe, measure: Callable[[], ProbeOutcome]) -> ProbeOutcome:
        """What the probe found before, or what it measures now.

        Processes take turns: the second one finds what the first one measured. A probe of a plug-in is always
        measured: nothing tells its code from an edited one. A folder that cannot be used is told in the log, and
        costs only time.

        Returns:
            With details as JSON gives them back, whether they were kept or not.
        """
        if not type(probe).__module__.startswith("jepa_lab."):
            return _plain(measure())
        key = self.key(name, probe)
        with _entry(key) as file:
            kept = None if file is None else _read(file, key)
            if kept is not None:
                logger.info("raw pixels: %s was measured before on these images (%s)", name, file)
                return kept
            outcome = _plain(measure())
            if file is not None:
                _write(file, key, outcome)
            return outcome

    def key(self, name: str, probe: Probe) -> dict[str, Any]:
        """All that the outcome of a probe depends on."""
        return {
            "probe": name,
            "params": probe.params.model_dump(mode="json"),
            "seed": self.seed if probe.uses_seed else None,
            "images": dict(self.images),
            "conditions": dict(self.conditions),
            "versions": {"jepa-lab": __version__, **{each: metadata.version(each) for each in _PACKAGES}},
            "code": _code(),
        }


@cache
def _code() -> str:
    """Digest of the probes' own code: between two releases the version says nothing."""
    digest = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _plain(outcome: ProbeOutcome) -> ProbeOutcome:
    return replace(outcome, details=json.loads(json.dumps(outcome.details)))


@contextmanager
def _entry(key: Mapping[str, Any]) -> Iterator[Path | None]:
    """The file of an entry, locked; None where there can be none."""
    with ExitStack() as stack:
        try:
            folder = cache_folder() / "raw-pixels"
            with explained_writes(folder):
                folder.mkdir(parents=True, exist_ok=True)
            name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
            file: Path | None = folder / f"{name}.json"
            lock = stack.enter_context(FileLock(folder / f"{name}.lock", f"the raw pixels {file}"))
            lock.acquire(timeout_seconds=math.inf)
        except (ConfigError, RunFolderError, RunStopped) as error:
            _tell_not_kept(error)
            file = None
        yield file


def _read(file: Path, key: Mapping[str, Any]) -> ProbeOutcome | None:
    """The outcome of an entry that can be trusted."""
    if not file.exists():
        return None
    try:
        record = record_as(_Record, read_record(file, KIND, VERSION), file)
        predictions = {key: Predictions.from_dict(each) for key, each in record.predictions.items()}
    except (KeyError, TypeError, ValueError) as error:
        logger.warning("raw pixels are measured again: the predictions in %s cannot be read (%s)", file, error)
        return None
    except RunFolderError as error:
        logger.warning("raw pixels are measured again: %s", error.rule)
        return None
    if record.key != key:
        logger.warning("raw pixels are measured again: %s is about others", file)
        return None
    return ProbeOutcome(record.scores, record.details, record.notes, record.choice, predictions)


def _write(file: Path, key: Mapping[str, Any], outcome: ProbeOutcome) -> None:
    scores = [asdict(score) for score in outcome.scores]
    kept = {"scores": scores, "details": outcome.details, "notes": outcome.notes, "choice": outcome.choice}
    predictions = {name: each.to_dict() for name, each in outcome.predictions.items()}
    try:
        write_record(file, KIND, VERSION, {"key": key, **kept, "predictions": predictions})
    except (RunFolderError, RunStopped) as error:
        _tell_not_kept(error)


def _tell_not_kept(error: JepaLabError) -> None:
    logger.warning("what probes find on raw pixels cannot be kept for other runs: %s", error)
