"""What passes between the parent of a sweep and its workers: a task, and how it ended."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

Outcome = Literal[
    "finished", "failed", "pruned", "collapsed", "interrupted", "out_of_memory", "died", "busy", "refused"
]

NO_TASK = 66
"""Exit code of a worker that cannot read its task: EX_NOINPUT of sysexits.h."""


@dataclass(frozen=True)
class Expected:
    """What the parent of a sweep sees, and every worker on another machine must see as well.

    Attributes:
        host: of the parent. folder: of the sweep. plan: SHA-256 of its plan.json.
        version: of jepa-lab, with its commit where there is one. source: SHA-256 over its Python files.
    """

    host: str
    folder: str
    plan: str
    version: str
    source: str


@dataclass(frozen=True)
class Task:
    """A trial for a worker. Paths are absolute: a worker may start in any folder.

    Attributes:
        number: of the trial in its study.
        name: of the trial in the sweep, such as `arm-0003`; no other trial of it has this name.
        config: YAML of the resolved pipeline.
        runs: run root; an unfinished run of this pipeline there is resumed.
        claim: lock file that a worker holds while it is at work on the trial, whoever submitted it.
        tags, params: what the tracker is told beside the run's own.
        needs_probe: whether the sweep is decided by a probe, which images without labels do not have.
        encoder: source of an encoder that is probed in place of a run; `runs` is then the folder of the result.
        gpu_memory_bytes: that its tensors may take on the GPU, which it shares; None is all there is.
        folder: working folder of the parent, which relative paths in the pipeline are seen from; None is the worker's.
        expected: what the worker must find before it begins; None where it is on the parent's machine.
    """

    number: int
    name: str
    config: Path
    runs: Path
    claim: Path
    tags: Mapping[str, str]
    params: Mapping[str, str]
    needs_probe: bool = False
    encoder: str | None = None
    gpu_memory_bytes: int | None = None
    folder: Path | None = None
    expected: Expected | None = None

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, line: str) -> Task:
        """The task that `to_json` wrote."""
        content: dict[str, Any] = json.loads(line)
        for key in ("config", "runs", "claim", "folder"):
            content[key] = None if content[key] is None else Path(content[key])
        if content["expected"] is not None:
            content["expected"] = Expected(**content["expected"])
        return cls(**content)


@dataclass(frozen=True)
class Reply:
    """How a task ended.

    Attributes:
        number: of its task.
        outcome: "collapsed" where the run was to end with its features' collapse, and did; "died" where the worker
            itself was killed or crashed; "busy" where another process is at work on the run; "refused" where the
            worker's machine does not see what the parent sees.
        message: why, in words; empty for a trial that finished.
    """

    number: int
    outcome: Outcome
    message: str

    def to_json(self) -> str:
        """One line."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Reply:
        """The reply that `to_json` wrote."""
        return cls(**json.loads(line))
