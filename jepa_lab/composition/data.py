"""What a run is trained on and probed on, loaded once, by the leader of its processes first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch

from jepa_lab.build import PreparedData, prepare_data, prepare_probe_data, surveys_of
from jepa_lab.config.loading import LoadedPipeline
from jepa_lab.data.base import DATASETS
from jepa_lab.data.survey import Survey, load_surveys
from jepa_lab.training.devices import memory_errors
from jepa_lab.training.progress import build_display
from jepa_lab.training.team import Team


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
    team.agree(
        {"images": f"digest {data.digest}", "images of the probe": f"digest {probe_data.digest}"},
        "put the same images on every machine",
    )
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
