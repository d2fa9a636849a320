"""What is refused before anything is trained, because data, processes and pipeline do not fit together."""

from __future__ import annotations

from jepa_lab.build import PreparedData
from jepa_lab.composition.outcome import Membership
from jepa_lab.config.checks import check_regularizer
from jepa_lab.config.loading import LoadedPipeline
from jepa_lab.errors import DataError
from jepa_lab.evaluation import check_probes, probe_splits, refuse_probes_of_maps
from jepa_lab.training.team import Team


def check_probe(loaded: LoadedPipeline, data: PreparedData, member: Membership | None) -> None:
    """Refuse what the probe could not do, before anything is trained.

    Raises:
        DataError: there are no labels where a sweep is decided by a probe, or a class is missing from a split.
        ConfigError: a setting that needs more images.
    """
    with loaded.located("data" if loaded.pipeline.probe.data is None else "probe.data"):
        splits = probe_splits(data)
    if splits is None and member is not None and member.needs_probe:
        raise DataError(
            "the images have no labels, and the sweep is decided by a probe, which needs them; name labelled images "
            "under probe.data, or take a metric such as rankme_end"
        )
    if splits is None:
        refuse_probes_of_maps(loaded)
    else:
        check_probes(loaded, splits)


def check_team(loaded: LoadedPipeline, team: Team) -> None:
    """Every process takes as many images of every part of a batch as the others.

    Raises:
        ConfigError: the batch cannot be divided so.
    """
    training = loaded.pipeline.training
    parts = team.size * training.accumulation_steps
    if training.batch_size % parts:
        raise loaded.error(
            "training.batch_size",
            f"training.batch_size must be a multiple of {parts}, got {training.batch_size}: it is that of all "
            f"{team.size} processes together (torchrun --nproc-per-node), each of which computes its images in "
            f"training.accumulation_steps={training.accumulation_steps} part(s); change one of the three",
            "training.accumulation_steps",
        )
    if team.size > 1 and training.capture == "on":
        raise loaded.error(
            "training.capture",
            f"training.capture=on captures the step of one process, and torchrun has started {team.size}; use "
            "training.capture=auto",
        )
    check_regularizer(loaded, team.size)


def check_batch(loaded: LoadedPipeline, data: PreparedData) -> None:
    batch_size, available = loaded.pipeline.training.batch_size, len(data.train)
    if batch_size > available:
        raise loaded.error(
            "training.batch_size",
            f"training.batch_size must be at most the number of training images, got {batch_size} and {available} "
            "(after the validation split); lower it, or use more images",
        )
