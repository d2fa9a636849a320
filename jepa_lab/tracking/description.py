"""What a tracker is told about a run: `run.json`, written once by the run and read by the mirror."""

from __future__ import annotations

import dataclasses
import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from jepa_lab.tracking.records import read_versioned_record, record_as, write_record
from jepa_lab.tracking.unescaped_uris import with_escaped_uri

RunStatus = Literal["FINISHED", "FAILED", "KILLED"]  # how a run ended, in MLflow's words

KIND = "run"
VERSION = 2
_UNESCAPED_VERSION = 1  # its SQLite URIs held paths as they were


@dataclass(frozen=True)
class TrackerSettings:
    """Where the mirror sends a run.

    Attributes:
        uri: tracking URI without credentials; the path of a SQLite file is absolute and percent-encoded.
        artifact_location: URI of the artifact folder of a new experiment; None lets the server choose.
        run_name: None for the name of the run folder.
        flush_seconds: pause between two looks at `metrics.jsonl`.
        uri_from, experiment_from: what chose them, such as "tracking.uri" or "MLFLOW_TRACKING_URI"; empty in run
            folders that were written before it was kept.
    """

    uri: str
    artifact_location: str | None
    experiment: str
    run_name: str | None
    flush_seconds: float
    uri_from: str = ""
    experiment_from: str = ""

    def in_words(self) -> str:
        """Store and experiment."""
        return f"MLflow experiment {self.experiment!r} at {self.uri}"

    def record(self) -> dict[str, str]:
        """Store and experiment, and what chose them: JSON values for result.json."""
        return {
            "uri": self.uri,
            "uri_from": self.uri_from,
            "experiment": self.experiment,
            "experiment_from": self.experiment_from,
        }


@dataclass(frozen=True)
class DatasetRecord:
    """The data set of a run, as MLflow shows it.

    Attributes:
        source: where the data came from: a path, or words.
        digest: changes when the data change; at most 36 characters, which is MLflow's limit.
    """

    name: str
    source: str
    digest: str


@dataclass(frozen=True)
class RunDescription:
    """What is known about a run before its first step.

    Attributes:
        params: the resolved config, flat (`flat_params`): `{"masker.num_targets": "4"}`.
        tags: the parts chosen: masker, position, loss, target, predictor, dataset, seed, config_digest, ...
        tracker: None where the run is not mirrored.
        run_uid: names this run in a tracker, so that it is found again when `mirror.json` is lost.
        started: Unix time of the first start, in seconds.
    """

    params: Mapping[str, str]
    tags: Mapping[str, str]
    dataset: DatasetRecord | None = None
    tracker: TrackerSettings | None = None
    run_uid: str = field(default_factory=lambda: uuid.uuid4().hex)
    started: float = field(default_factory=time.time)


def record_name(description: RunDescription, folder_name: str) -> str:
    """What a tracker calls a run: `<arm> s<seed>` for a trial of a sweep, else the chosen name, or the folder's.

    A sweep has one `tracking.run_name` for all its trials, which could not be told apart by it.
    """
    arm = description.tags.get("arm")
    if arm is not None:
        return f"{arm} s{description.params['seed']}"
    return (description.tracker and description.tracker.run_name) or folder_name


def flat_params(config: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """A nested config as MLflow params: dotted keys, text as it is, everything else as JSON.

    An empty section becomes `{}`, so that every key of the config shows.
    """
    flat: dict[str, str] = {}
    for key, value in config.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat.update(flat_params(value, f"{name}."))
        else:
            flat[name] = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return flat


def save_description(path: Path, description: RunDescription) -> None:
    """Write `run.json`; a run that goes on keeps its identity and its first start.

    Raises:
        RunFolderError: if an older `run.json` is there and cannot be read.
    """
    if path.exists():
        before = load_description(path)
        description = dataclasses.replace(description, run_uid=before.run_uid, started=before.started)
    write_record(path, KIND, VERSION, dataclasses.asdict(description))


def load_description(path: Path) -> RunDescription:
    """Read `run.json`.

    Raises:
        RunFolderError: if it is missing or damaged.
    """
    version, content = read_versioned_record(path, KIND, (_UNESCAPED_VERSION, VERSION))
    description = record_as(RunDescription, content, path)
    if version == VERSION or description.tracker is None:
        return description
    given = description.params.get("tracking.uri")
    return dataclasses.replace(description, tracker=with_escaped_uri(description.tracker, given))
