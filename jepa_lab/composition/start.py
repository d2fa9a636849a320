"""Start a run: everything is checked and loaded before its folder is made."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import torch

from jepa_lab.composition.checks import check_batch, check_probe, check_team
from jepa_lab.composition.data import load_shared_data
from jepa_lab.composition.first_weights import check_weights
from jepa_lab.composition.outcome import Membership, RunOutcome
from jepa_lab.composition.parts import RunParts
from jepa_lab.composition.run import Run
from jepa_lab.composition.shared_folder import check_shared_folder
from jepa_lab.composition.stopping import locked, stoppable
from jepa_lab.composition.tracker import build_tracker
from jepa_lab.config.checks import check_pipeline
from jepa_lab.config.loading import LoadedPipeline, config_digest, dump_pipeline
from jepa_lab.config.provenance import component_origins
from jepa_lab.output import unfailing_output
from jepa_lab.parent import Parent, check_steps, write_parent
from jepa_lab.tracking.environment import describe_environment
from jepa_lab.tracking.run_folder import RunFolder
from jepa_lab.training.devices import resolve_compute
from jepa_lab.training.team import Alone, Team


def start_run(
    loaded: LoadedPipeline,
    run_root: Path,
    command: Sequence[str],
    member: Membership | None = None,
    team: Team | None = None,
    parent: Parent | None = None,
) -> RunOutcome:
    """Check a pipeline, load its data, and train and probe it in a new run folder.

    Args:
        member: of what it is a part; None for a run of its own.
        team: the processes that train it together, which all call this; by default this one alone.
        parent: the run whose state it continues; None to start anew.
    Raises:
        ConfigError, DataError, DeviceError, RunFolderError: before anything was written.
        RunStopped: a good run was stopped from outside; it can be resumed.
    """
    started = time.monotonic()
    pipeline, team = loaded.pipeline, Alone() if team is None else team
    with unfailing_output(), stoppable(team.stop), ExitStack() as stack:
        with team.reporting():
            check_pipeline(loaded)
            check_team(loaded, team)
            if member is None and team.leads:
                build_tracker(pipeline, None)  # a wrong store is told before anything is written
            if pipeline.training.num_threads is not None:
                torch.set_num_threads(pipeline.training.num_threads)
            with loaded.located("training"):
                compute = team.on_device(resolve_compute(pipeline.training))
        data, probe_data = load_shared_data(loaded, compute.device, None, team, started)
        with team.reporting():
            check_batch(loaded, data)
            check_probe(loaded, probe_data, member)
            first_weights = check_weights(loaded, data, run_root)
            if parent is not None:
                check_steps(parent, pipeline, len(data.train))

        def create() -> RunFolder:
            resolved = dump_pipeline(pipeline)
            folder = RunFolder.create(run_root, pipeline.name, config_digest(pipeline), pipeline.seed, resolved)
            stack.enter_context(locked(folder))
            conditions = describe_environment(command, team.describe(compute))
            folder.write_environment(conditions | {"components": component_origins(pipeline)} | first_weights)
            if parent is not None:
                write_parent(folder, parent)
            return folder

        check_shared_folder(run_root, team)
        folder = team.from_leader(create)
        return Run(RunParts(pipeline, folder, compute, data, probe_data, None, started, member, team)).execute()
