"""`jepa_lab.probe`: measure any encoder by the protocol that runs are measured by."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jepa_lab.api.encoder import Encoder
from jepa_lab.api.errors import explained_errors
from jepa_lab.api.inputs import Overrides, PipelineSource, load_given_pipeline, override_texts
from jepa_lab.api.running import RunResult
from jepa_lab.errors import ConfigError
from jepa_lab.interop.probe_source import probe_found, probe_source
from jepa_lab.looks import KIND, VERSION
from jepa_lab.reprobe import probe_again
from jepa_lab.tracking.folder_names import find_folder
from jepa_lab.tracking.records import write_record
from jepa_lab.tracking.run_folder import RunFolder
from jepa_lab.weights.sources.base import SourceContext


@dataclass(frozen=True)
class ProbeResult:
    """What probes found.

    Attributes:
        metrics: flat numbers, such as `probe/validation_accuracy` and `random_encoder/validation_accuracy`.
        content: all that is known, as in the file.
        file: where it was written; None where no file was wanted.
        notes: sentences about the encoder that a reader should know.
    """

    metrics: dict[str, float | None]
    content: dict[str, Any]
    file: Path | None
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"ProbeResult({len(self.metrics)} metrics, file={None if self.file is None else str(self.file)!r})"


def probe(
    encoder: str | os.PathLike[str] | Encoder | RunResult,
    pipeline: PipelineSource | None = None,
    overrides: Overrides | None = None,
    *,
    step: int | None = None,
    score_test: bool = False,
    out: str | os.PathLike[str] | None = None,
    runs: str | os.PathLike[str] = "runs",
    uri: str | None = None,
) -> ProbeResult:
    """Probe an encoder on frozen features, beside a random one of its architecture and raw pixels.

    Without a pipeline, `encoder` is a run, which is probed on its own data, with overrides of `probe.*`; the result is
    written to the run's folder. With a pipeline, which says data and probes, it is any encoder, and nothing is written
    but `out`.

    Args:
        encoder: a source as for `load_encoder`, an `Encoder` (its present weights are probed), or the result of a run.
        pipeline, overrides: as for `jepa_lab.run`.
        step: of the run's checkpoint, without a pipeline; by default the last one.
        score_test: score the test split, too; the looks at it are counted.
        out: JSON file to write, with a pipeline.
        runs: folder of the run folders. uri: MLflow's tracking URI.
    Raises:
        JepaLabError: see `jepa_lab.run`.
    """
    place = encoder.folder if isinstance(encoder, RunResult) else encoder
    texts = override_texts(overrides)
    with explained_errors(probe):
        if pipeline is None:
            if isinstance(place, Encoder) or out is not None or uri is not None:
                raise ConfigError("an Encoder, out and uri go with a pipeline, which says data and probes; name one")
            return probe_run(Path(place), Path(runs), texts, step, score_test=score_test)
        if step is not None:
            raise ConfigError("step chooses a checkpoint of a run without a pipeline; leave it out, or the pipeline")
        wanted = ProbeRequest(pipeline, texts, score_test, None if out is None else Path(out), Path(runs), uri)
        return probe_elsewhere(place if isinstance(place, Encoder) else os.fspath(place), wanted)


def probe_run(run: Path, runs: Path, overrides: Sequence[str], step: int | None, *, score_test: bool) -> ProbeResult:
    """Probe a checkpoint of a run on its own data; see `probe_again`.

    Args:
        run: its name or folder. overrides: `key=value` each.
    """
    folder = RunFolder.open(find_folder(run, [runs]))
    file, content = probe_again(folder, overrides, step, score_test=score_test)
    return ProbeResult(content["metrics"], content, file)


@dataclass(frozen=True)
class ProbeRequest:
    """How to probe an encoder that the pipeline did not train; see `probe`."""

    pipeline: PipelineSource
    overrides: Sequence[str]
    score_test: bool
    out: Path | None
    runs: Path
    uri: str | None


def probe_elsewhere(encoder: str | Encoder, request: ProbeRequest, say: Callable[[str], None] = print) -> ProbeResult:
    """Probe an encoder on the data of a pipeline that did not train it.

    Args:
        encoder: one that is loaded, or its source.
        say: is told what is being done.
    """
    loaded = load_given_pipeline(request.pipeline, request.overrides)
    if isinstance(encoder, Encoder):
        found = probe_found(loaded, encoder.as_found(), say, score_test=request.score_test)
    else:
        context = SourceContext((request.runs,), uri=request.uri)
        found = probe_source(loaded, encoder, context, say, score_test=request.score_test)
    if request.out is not None:
        write_record(request.out, KIND, VERSION, found.content)
    return ProbeResult(found.content["metrics"], found.content, request.out, found.notes)
