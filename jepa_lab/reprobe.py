"""`jepa-lab probe`: probe the encoder of a run again, with other settings or on other data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jepa_lab.build import build_model, prepare_data, prepare_probe_data
from jepa_lab.config.checks import check_pipeline
from jepa_lab.config.loading import changed_keys, load_pipeline, load_resolved
from jepa_lab.errors import ConfigError
from jepa_lab.evaluation import final_evaluation
from jepa_lab.tracking.records import write_record
from jepa_lab.tracking.run_folder import RunFolder
from jepa_lab.training.checkpoint import CheckpointStore
from jepa_lab.training.devices import resolve_compute

_ALLOWED = ("probe.", "training.device", "training.num_threads")
VERSION = 1


def probe_again(folder: RunFolder, overrides: Sequence[str], step: int | None) -> tuple[Path, dict[str, Any]]:
    """Probe a checkpoint and write `probes/<number>.json` beside the run's own result, which stays.

    Args:
        overrides: of the `probe` section, and of the device.
        step: of the checkpoint; None for the last one.
    Returns:
        The file, and its content.
    Raises:
        ConfigError: an override of anything that the encoder was trained with.
        RunFolderError: no such checkpoint.
    """
    stored = load_resolved(folder.config.read_text(encoding="utf-8"), str(folder.config))
    loaded = load_pipeline(folder.config, overrides)
    pipeline = loaded.pipeline
    foreign = [key for key in changed_keys(stored, pipeline) if not key.startswith(_ALLOWED)]
    if foreign:
        raise ConfigError(
            f"{', '.join(foreign)} cannot change: the encoder of {folder.path} was trained with it; "
            "a probe takes probe.* and training.device alone"
        )
    check_pipeline(loaded)
    checkpoint = CheckpointStore(folder.checkpoints).load(step)
    compute = resolve_compute(pipeline.training)
    data = prepare_data(pipeline)
    probe_data = prepare_probe_data(pipeline, data)
    model = build_model(pipeline, data.train.images.shape[1])
    model.load_state_dict(checkpoint.model)
    target = folder.path / "probes"
    target.mkdir(exist_ok=True)
    number = 1 + sum(1 for _ in target.glob("*.json"))
    summary, details = final_evaluation(
        pipeline, model.to(compute.device), probe_data, compute, target / f"{number}-figures"
    )
    content = {
        "step": checkpoint.run.step,
        "settings": pipeline.probe.model_dump(mode="json"),
        "metrics": summary,
        **details,
    }
    file = target / f"{number}.json"
    write_record(file, "probe", VERSION, content)
    return file, content
