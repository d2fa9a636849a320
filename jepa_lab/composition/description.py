"""What a tracker is told about a run."""

from __future__ import annotations

import json
from pathlib import Path

from jepa_lab.composition.parts import RunParts
from jepa_lab.config.loading import config_digest
from jepa_lab.data.resident import channel_record
from jepa_lab.parent import read_parent
from jepa_lab.tracking.base import Tracker
from jepa_lab.tracking.description import DatasetRecord, RunDescription, flat_params


def describe_run(run: RunParts, tracker: Tracker) -> RunDescription:
    """What a tracker is told about a run: parameters, tags, data set."""
    pipeline = run.pipeline
    config = pipeline.model_dump(mode="json")
    parts = ("masker", "target", "loss", "regularizer", "ema_momentum", "augmentation")
    tags = {part: config[part]["name"] for part in parts}
    tags |= {
        "dataset": config["data"]["dataset"]["name"],
        "encoder_size": config["encoder"]["size"]["name"],
        "encoder_position": config["encoder"]["position"]["name"],
        "predictor_size": config["predictor"]["size"]["name"],
        "predictor_position": config["predictor"]["position"]["name"],
        "context_batching": pipeline.context_batching,
        "pipeline": pipeline.name,
        "seed": str(pipeline.seed),
        "config_digest": config_digest(pipeline),
        "run_folder": str(run.folder.path.resolve()),
    }
    parent = read_parent(run.folder)
    tags |= {} if parent is None else {"parent_run": Path(parent.folder).name, "parent_step": str(parent.step)}
    tags |= {key: json.dumps(values) for key, values in channel_record(run.data.mean, run.data.std).items()}
    dataset = DatasetRecord(tags["dataset"], run.data.source, run.data.digest)
    params = flat_params(config)
    if run.member is not None:
        tags, params = {**tags, **run.member.tags}, {**run.member.params, **params}
    return RunDescription(params, tags, dataset, tracker.settings())
