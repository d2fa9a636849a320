"""What MLflow is told about a run besides its metrics: params, tags, the data set, the weights.

Each function may be called again after a failure in its middle, and then completes what is missing.
"""

from __future__ import annotations

import json
import posixpath
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jepa_lab.errors import RunFolderError
from jepa_lab.tracking.description import DatasetRecord, RunDescription
from jepa_lab.tracking.mlflow_calls import TrackerAway
from jepa_lab.tracking.mlflow_model_files import write_model_files
from jepa_lab.tracking.mlflow_names import (
    CUT_PARAMS_TAG,
    MAX_DATASET_DIGEST,
    MAX_PARAMS_PER_BATCH,
    MAX_TAGS_PER_BATCH,
    batches,
    legal_model_name,
    legal_params,
    legal_tags,
)
from jepa_lab.tracking.run_folder import RunFolder

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import FileInfo, LoggedModel

CHECKPOINT_TAG = "jepa_lab.checkpoint"
WEIGHTS = "model.safetensors"


def log_params_and_tags(client: MlflowClient, run_id: str, description: RunDescription, folder: Path) -> set[str]:
    """The flat config as params, the parts chosen as tags; the names of params that were cut in a tag.

    Params that are there stay as they are: MLflow refuses another value, and the record would never be complete.

    Returns:
        The names of all params and tags.
    """
    from mlflow.entities import Param, RunTag

    params, cut = legal_params(description.params)
    tags = {"mlflow.source.name": "jepa-lab", "jepa_lab.run_folder": str(folder.resolve())}
    tags.update(description.tags)
    if cut:
        tags[CUT_PARAMS_TAG] = ", ".join(cut)
    tags = legal_tags(tags)
    there = client.get_run(run_id).data.params
    missing = {key: value for key, value in params.items() if key not in there}
    for batch in batches(missing, MAX_PARAMS_PER_BATCH):
        client.log_batch(run_id, params=[Param(key, value) for key, value in batch.items()])
    for batch in batches(tags, MAX_TAGS_PER_BATCH):
        client.log_batch(run_id, tags=[RunTag(key, value) for key, value in batch.items()])
    return {*params, *tags}


def log_dataset(client: MlflowClient, run_id: str, dataset: DatasetRecord | None) -> None:
    """The data set as an input of the run, by name and digest; no pixels are hashed for it.

    The entity is the one that `mlflow.data.meta_dataset.MetaDataset` with a code source is logged as.
    """
    inputs = client.get_run(run_id).inputs
    if dataset is None or (inputs is not None and inputs.dataset_inputs):
        return
    from mlflow.entities import Dataset, DatasetInput, InputTag
    from mlflow.utils.mlflow_tags import MLFLOW_DATASET_CONTEXT

    entity = Dataset(
        name=dataset.name,
        digest=dataset.digest[:MAX_DATASET_DIGEST],
        source_type="code",
        source=json.dumps({"tags": {"source": dataset.source}}, ensure_ascii=False),
    )
    client.log_inputs(run_id, [DatasetInput(entity, [InputTag(MLFLOW_DATASET_CONTEXT, "training")])])


def weights_size(folder: RunFolder, checkpoint: str) -> int:
    """Bytes of the weights of a checkpoint.

    Raises:
        RunFolderError: if the checkpoint has no `model.safetensors`.
    """
    weights = folder.path / checkpoint / WEIGHTS
    if not weights.is_file():
        raise RunFolderError(f"{weights}, which result.json names, is missing; restore it from a copy")
    return weights.stat().st_size


def find_models(client: MlflowClient, run_id: str, checkpoint: str) -> list[LoggedModel]:
    """The models that were logged of a checkpoint of a run: one, and twins of requests that were given up."""
    experiment_id = client.get_run(run_id).info.experiment_id
    models = client.search_logged_models([experiment_id], filter_string=f"source_run_id = '{run_id}'")
    return [found for found in models if found.tags.get(CHECKPOINT_TAG) == checkpoint]


def log_model(client: MlflowClient, run_id: str, folder: RunFolder, result: Mapping[str, Any]) -> None:
    """The weights of a checkpoint and the config, as a logged model which is an output of the run.

    Args:
        result: content of result.json, whose `final_checkpoint` it is.
    """
    from mlflow.entities import LoggedModelOutput

    checkpoint = result["final_checkpoint"]
    weights = folder.path / checkpoint / WEIGHTS
    run = client.get_run(run_id)
    experiment_id = run.info.experiment_id
    mine = find_models(client, run_id, checkpoint)
    model = mine[0] if mine else None
    if model is None:
        model = client.create_logged_model(
            experiment_id=experiment_id,
            name=legal_model_name(folder.name),
            source_run_id=run_id,
            tags={CHECKPOINT_TAG: checkpoint},
            model_type="I-JEPA",
        )
    for file in (weights, folder.config):
        client.log_model_artifact(model.model_id, str(file))
        check_stored(client.list_logged_model_artifacts(model.model_id), file)
    _log_model_files(client, model.model_id, run_id, result)
    client.finalize_logged_model(model.model_id, "READY")
    outputs = run.outputs.model_outputs if run.outputs is not None else []
    if model.model_id not in {known.model_id for known in outputs}:
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, result["last_step"])])
    for twin in mine[1:]:  # made by a request that was given up as too slow and carried out all the same
        client.delete_logged_model(twin.model_id)


def _log_model_files(client: MlflowClient, model_id: str, run_id: str, result: Mapping[str, Any]) -> None:
    """What makes weights and config a model that MLflow loads."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_model_files(folder, model_id, run_id, result)
        for file in sorted(path for path in folder.rglob("*") if path.is_file()):
            inside = file.parent.relative_to(folder).as_posix()
            place = None if inside == "." else inside
            client.log_model_artifact(model_id, str(file), place)
            check_stored(client.list_logged_model_artifacts(model_id, place), file)


def check_stored(listed: Sequence[FileInfo], file: Path) -> None:
    """A file that was uploaded must be in the listing of its folder, with its size where the store tells sizes.

    Something else than MLflow may have answered the upload, and MLflow's client looks at the status code alone.

    Raises:
        TrackerAway: if it is not there.
    """
    sizes = {posixpath.basename(entry.path): entry.file_size for entry in listed}
    if sizes.get(file.name, -1) not in (None, file.stat().st_size):
        raise TrackerAway(f"the tracker acknowledged {file.name} and does not have it")
