"""The mirror against real MLflow stores: everything arrives, once, whatever dies on the way."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from jepa_lab.errors import ConfigError, RunFolderError
from jepa_lab.figures.png import write_png
from jepa_lab.tracking import mlflow_calls
from jepa_lab.tracking.description import DatasetRecord, RunDescription, TrackerSettings
from jepa_lab.tracking.environment import describe_environment
from jepa_lab.tracking.locks import FileLock
from jepa_lab.tracking.metrics import MetricsWriter, read_metrics
from jepa_lab.tracking.mirror import ParentWatch, folders_to_sync, follow, sync
from jepa_lab.tracking.mirror_cursor import MirrorCursor, mirror_state
from jepa_lab.tracking.mlflow_calls import TrackerAway
from jepa_lab.tracking.mlflow_mirror import Mirror
from jepa_lab.tracking.mlflow_names import legal_params
from jepa_lab.tracking.mlflow_store import connect
from jepa_lab.tracking.mlflow_tracker import MlflowParams, MlflowTracker
from jepa_lab.tracking.run_folder import RunFolder
from jepa_lab.tracking.uris import sqlite_path
from tests.integration.with_mlflow import MLFLOW_WARNINGS, kept_environment

if TYPE_CHECKING:
    from mlflow import MlflowClient

# MLflow and the libraries it imports warn about their own use of each other; ours is not meant.
pytestmark = MLFLOW_WARNINGS


class Crash(Exception):
    """Stands for SIGKILL at this very line."""


@pytest.fixture(scope="module", autouse=True)
def _environment() -> Iterator[None]:
    with kept_environment():
        yield


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> TrackerSettings:
    """One SQLite store for the module, because making one takes seconds; blanks and umlauts in its path."""
    root = tmp_path_factory.mktemp("mlflow störe")
    settings = MlflowTracker(MlflowParams(uri=f"sqlite:///{root}/sub folder/mlflow.db")).settings()
    assert settings is not None
    connect(settings)
    return settings


@pytest.fixture
def client(store: TrackerSettings) -> MlflowClient:
    return connect(store)


@pytest.fixture
def folder(tmp_path: Path, store: TrackerSettings) -> RunFolder:
    """A run that has begun and logged nothing yet."""
    made = RunFolder.create(tmp_path / "runs", "digits.v1", "0123456789", 3, "name: digits\n")
    made.write_environment(describe_environment(["jepa-lab", "run"], "cpu"))
    made.write_description(
        RunDescription(
            params={f"section.key_{number}": str(number) for number in range(110)}
            | {"masker.scale": "[0.15, 0.2]", "odd@name[0]": "x", "empty": "", "long": "é" * 7000},
            tags={"masker": "multi_block", "seed": "3", "config_digest": "0123456789"},
            dataset=DatasetRecord("digits", "scikit-learn's load_digits", "d" * 36),
            tracker=store,
        )
    )
    return made


def _log(folder: RunFolder, steps: range, cursor: int | None = None) -> int:
    """Write three metrics a step, one of them only at even steps; the cursor behind them."""
    with MetricsWriter(folder.metrics, cursor) as writer:
        for step in steps:
            odd = None if step % 2 else step / 7
            writer.append(step, step / 100, {"train/loss": 1 / (step + 1), "lr": 1e-3 * step, "probe/knn": odd})
        return writer.sync()


def _finish(folder: RunFolder, last_step: int) -> None:
    checkpoint = folder.checkpoints / f"step-{last_step:08d}"
    checkpoint.mkdir()
    (checkpoint / "model.safetensors").write_bytes(b"weights")
    (folder.figures / "confusion.png").write_bytes(b"png")
    folder.write_result("FINISHED", {"test/accuracy": 0.75, "rankme": math.nan, "none": None}, last_step, checkpoint)


def _run_id(folder: RunFolder) -> str:
    return str(json.loads(folder.mirror.read_text())["run_id"])


def _history(client: MlflowClient, folder: RunFolder, key: str) -> list[tuple[int, float]]:
    return sorted((metric.step, metric.value) for metric in client.get_metric_history(_run_id(folder), key))


def _assert_mirrored_exactly(client: MlflowClient, folder: RunFolder) -> None:
    """Every metric of the file is in MLflow with its value, once, and nothing else is."""
    rows = read_metrics(folder.metrics)
    for key in ("train/loss", "lr", "probe/knn"):
        expected = [(row.step, row.metrics[key]) for row in rows if row.metrics[key] is not None]
        assert _history(client, folder, key) == expected, key


@pytest.fixture
def arrived(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Name and step of every metric that reaches MLflow, as often as it does.

    MLflow's SQL stores hide a row that is sent twice with the same time and value; other stores do not.
    """
    from mlflow import MlflowClient

    seen: list[tuple[str, int]] = []
    real = MlflowClient.log_batch

    def log_batch(*given: Any, metrics: Sequence[Any] = (), **named: Any) -> None:
        real(*given, metrics=metrics, **named)
        seen.extend((metric.key, metric.step) for metric in metrics)

    monkeypatch.setattr(MlflowClient, "log_batch", log_batch)
    return seen


def _dying_after(real: Callable[..., Any], at_call: int) -> Callable[..., Any]:
    """`real`, but its caller dies when the given call has done its work and before it learns so."""
    calls = 0

    def call(*given: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        result = real(*given, **named)
        if calls == at_call:
            raise Crash
        return result

    return call


def _die(*_: object) -> NoReturn:
    raise Crash


def test_everything_of_a_run_arrives(client: MlflowClient, folder: RunFolder) -> None:
    _log(folder, range(1500))
    _finish(folder, 1499)
    state = sync(folder.path)
    assert state.complete, state
    assert state.error is None
    _assert_mirrored_exactly(client, folder)
    run = client.get_run(_run_id(folder))
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "digits.v1-01234567-s3"
    assert run.data.params["masker.scale"] == "[0.15, 0.2]"
    assert run.data.params["odd_name_0_"] == "x"
    assert run.data.params["empty"] == ""
    assert run.data.params["long"] == legal_params({"long": "é" * 7000})[0]["long"]
    assert len(run.data.params["long"]) == 6000
    assert len(run.data.params) == 114
    assert run.data.tags["masker"] == "multi_block"
    assert run.data.tags["jepa_lab.cut_params"] == "long"
    assert run.data.tags["jepa_lab.run_folder"] == str(folder.path)
    assert run.data.metrics["test/accuracy"] == 0.75
    assert math.isnan(run.data.metrics["rankme"])
    (given,) = run.inputs.dataset_inputs
    assert (given.dataset.name, given.dataset.digest) == ("digits", "d" * 36)
    assert "load_digits" in given.dataset.source
    top = {item.path for item in client.list_artifacts(run.info.run_id)}
    assert top == {"config.yaml", "environment.json", "result.json", "figures"}
    figures = [item.path for item in client.list_artifacts(run.info.run_id, "figures")]
    assert figures == ["figures/confusion.png"]
    (output,) = run.outputs.model_outputs
    model = client.get_logged_model(output.model_id)
    assert (str(model.status), model.source_run_id, output.step) == ("READY", run.info.run_id, 1499)
    files = {item.path for item in client.list_logged_model_artifacts(model.model_id)}
    assert files == {"model.safetensors", "config.yaml", "MLmodel", "pytorch"}


def test_a_mirror_that_dies_between_acknowledgement_and_cursor_leaves_neither_gap_nor_duplicate(
    client: MlflowClient, folder: RunFolder, arrived: list[tuple[str, int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    _log(folder, range(700))
    Mirror(folder).push(ended=False)
    _log(folder, range(700, 1600))
    cursor_before = folder.mirror.read_text()
    with monkeypatch.context() as patch:
        patch.setattr(MirrorCursor, "save", _die)
        with pytest.raises(Crash):
            Mirror(folder).push(ended=False)
    assert folder.mirror.read_text() == cursor_before
    assert len(_history(client, folder, "train/loss")) > 700  # the batch did arrive
    _finish(folder, 1599)
    assert sync(folder.path).complete
    _assert_mirrored_exactly(client, folder)
    assert len(arrived) == len(set(arrived))


@pytest.mark.parametrize(
    ("method", "at_call"),
    [
        ("create_run", 1),
        ("log_batch", 2),
        ("log_inputs", 1),
        ("log_batch", 4),
        ("log_artifact", 3),
        ("create_logged_model", 1),
        ("log_outputs", 1),
        ("set_terminated", 1),
    ],
)
def test_a_mirror_that_dies_after_any_call_is_completed_by_sync(
    client: MlflowClient,
    folder: RunFolder,
    arrived: list[tuple[str, int]],
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    at_call: int,
) -> None:
    from mlflow import MlflowClient

    _log(folder, range(500))
    _finish(folder, 499)
    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, method, _dying_after(getattr(MlflowClient, method), at_call))
        with pytest.raises(Crash):
            sync(folder.path)
    assert not mirror_state(folder).complete
    assert sync(folder.path).complete
    _assert_mirrored_exactly(client, folder)
    run = client.get_run(_run_id(folder))
    uid = folder.read_description().run_uid
    found = client.search_runs([run.info.experiment_id], f"tags.`jepa_lab.run_uid` = '{uid}'")
    assert len(found) == 1
    assert len(run.data.params) == 114
    assert len(run.inputs.dataset_inputs) == 1
    assert len(run.outputs.model_outputs) == 1
    models = client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run.info.run_id}'")
    assert len(models) == 1
    assert len(arrived) == len(set(arrived))


@pytest.mark.parametrize("made_the_run", [True, False])
def test_a_call_that_times_out_after_it_arrived_is_not_repeated(
    client: MlflowClient,
    folder: RunFolder,
    arrived: list[tuple[str, int]],
    monkeypatch: pytest.MonkeyPatch,
    made_the_run: bool,
) -> None:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    _log(folder, range(10))
    mirror = Mirror(folder)
    mirror.push(ended=False)
    if not made_the_run:
        mirror = Mirror(folder)
    _log(folder, range(10, 20))
    real = MlflowClient.log_batch

    def arrive_and_time_out(*given: Any, **named: Any) -> None:
        real(*given, **named)
        raise MlflowException("timed out at http://ann:secret@host")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowClient, "log_batch", arrive_and_time_out)
        with pytest.raises(TrackerAway) as caught:
            mirror.push(ended=False)
    assert str(caught.value) == "timed out at http://host"
    mirror.note_error(caught.value)
    state = mirror_state(folder)
    assert (state.rows_behind, state.error) == (10, "timed out at http://host")
    mirror.push(ended=False)
    _assert_mirrored_exactly(client, folder)
    assert len(arrived) == len(set(arrived))
    assert mirror_state(folder).error is None


@pytest.mark.parametrize("same_mirror", [False, True])
@pytest.mark.parametrize("resumed_to", [30, 120])
def test_steps_that_a_resumed_run_repeats_are_not_logged_again(
    client: MlflowClient, folder: RunFolder, resumed_to: int, same_mirror: bool
) -> None:
    checkpoint = _log(folder, range(20))
    _log(folder, range(20, 60))
    mirror = Mirror(folder)
    mirror.push(ended=True)
    first = _history(client, folder, "train/loss")
    _log(folder, range(20, resumed_to), checkpoint)  # cut back, then fewer or more bytes than before
    (mirror if same_mirror else Mirror(folder)).push(ended=True)
    again = _history(client, folder, "train/loss")
    assert again[:60] == first
    assert [step for step, _ in again] == list(range(max(60, resumed_to)))


@pytest.mark.parametrize("lost", [b"", b"\0" * 100, None])
def test_a_lost_cursor_costs_no_rows_and_makes_no_duplicates(
    client: MlflowClient, folder: RunFolder, arrived: list[tuple[str, int]], lost: bytes | None
) -> None:
    _log(folder, range(50))
    Mirror(folder).push(ended=False)
    run_id = _run_id(folder)
    if lost is None:
        folder.mirror.unlink()
    else:
        folder.mirror.write_bytes(lost)
    _log(folder, range(50, 80))
    assert sync(folder.path).complete
    assert _run_id(folder) == run_id
    _assert_mirrored_exactly(client, folder)
    assert len(arrived) == len(set(arrived))


def test_params_that_changed_since_they_were_sent_do_not_keep_a_record_incomplete(
    client: MlflowClient, folder: RunFolder
) -> None:
    """As when a run is resumed with another `tracking` section, and its cursor is lost."""
    Mirror(folder).push(ended=False)
    description = folder.read_description()
    params = {**description.params, "section.key_7": "another value", "added": "later"}
    folder.write_description(dataclasses.replace(description, params=params))
    folder.mirror.unlink()
    _log(folder, range(3))
    _finish(folder, 2)
    state = sync(folder.path)
    assert state.complete, state
    sent = client.get_run(_run_id(folder)).data.params
    assert (sent["section.key_7"], sent["added"]) == ("7", "later")


def test_a_run_that_goes_on_is_running_again_and_then_ends_again(client: MlflowClient, folder: RunFolder) -> None:
    _log(folder, range(10))
    folder.write_result("KILLED", {}, 9)
    assert sync(folder.path).complete
    assert client.get_run(_run_id(folder)).info.status == "KILLED"
    folder.remove_result()
    Mirror(folder).push(ended=False)
    assert client.get_run(_run_id(folder)).info.status == "RUNNING"
    _log(folder, range(10, 20))
    _finish(folder, 19)
    assert sync(folder.path).complete
    assert client.get_run(_run_id(folder)).info.status == "FINISHED"
    _assert_mirrored_exactly(client, folder)


def test_a_result_that_was_sent_and_is_gone_again_does_not_keep_the_record_incomplete(folder: RunFolder) -> None:
    _log(folder, range(10))
    folder.write_result("KILLED", {}, 9)  # by SIGTERM
    assert sync(folder.path).complete
    folder.remove_result()  # the run goes on, and is killed
    assert sync(folder.path).complete
    assert mirror_state(folder).complete


def test_a_figure_that_was_being_drawn_when_the_run_was_killed_is_not_sent(
    client: MlflowClient, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matplotlib.figure import Figure

    with monkeypatch.context() as patch:
        patch.setattr("jepa_lab.figures.png.os.replace", _die)
        patch.setattr(Path, "unlink", lambda *given, **named: None)
        with pytest.raises(Crash):
            write_png(Figure(), folder.figures / "confusion.png")
    assert any(folder.figures.iterdir())
    assert sync(folder.path).complete
    assert not client.list_artifacts(_run_id(folder), "figures")


def test_a_cursor_that_belongs_to_another_run_is_not_believed(
    client: MlflowClient, folder: RunFolder, store: TrackerSettings, tmp_path: Path
) -> None:
    other = RunFolder.create(tmp_path / "other", "digits", "0123456789", 3, "name: digits\n")
    other.write_description(RunDescription({}, {}, tracker=store))
    for run, steps in ((folder, range(10)), (other, range(7))):
        _log(run, steps)
        assert sync(run.path).complete
    other.mirror.write_bytes(folder.mirror.read_bytes())
    _log(other, range(7, 30))
    assert not mirror_state(other).complete
    assert sync(other.path).complete
    assert _run_id(other) != _run_id(folder)
    for run in (folder, other):
        _assert_mirrored_exactly(client, run)


def test_a_store_that_was_put_back_to_before_the_end_gets_the_model_again(
    client: MlflowClient, folder: RunFolder, store: TrackerSettings
) -> None:
    import sqlite3

    _log(folder, range(10))
    _finish(folder, 9)
    assert sync(folder.path).complete
    with contextlib.closing(sqlite3.connect(str(sqlite_path(store.uri)))) as database, database:
        database.execute("UPDATE runs SET status = 'RUNNING', end_time = NULL WHERE run_uuid = ?", (_run_id(folder),))
        database.execute("DELETE FROM logged_models WHERE source_run_id = ?", (_run_id(folder),))
    assert sync(folder.path).complete
    run = client.get_run(_run_id(folder))
    assert run.info.status == "FINISHED"
    assert len(client.search_logged_models([run.info.experiment_id], f"source_run_id = '{_run_id(folder)}'")) == 1


def test_a_database_whose_driver_is_not_installed_is_told_and_not_a_crash(
    folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pymysql", None)
    place = TrackerSettings("mysql+pymysql://host/db", None, "faults", None, 5.0)
    folder.write_description(dataclasses.replace(folder.read_description(), tracker=place))
    state = sync(folder.path)
    assert not state.complete
    assert "tracking.uri needs the package pymysql" in str(state.error)


def test_a_second_sync_changes_nothing_and_a_new_figure_is_added(
    client: MlflowClient, folder: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    _log(folder, range(5))
    _finish(folder, 4)
    sync(folder.path)
    sent: list[str] = []
    for method in ("create_run", "log_batch", "log_artifact", "create_logged_model", "set_terminated"):
        real = getattr(MlflowClient, method)
        monkeypatch.setattr(
            MlflowClient, method, lambda *given, _real=real, _name=method, **named: (
                sent.append(_name), _real(*given, **named),
            )[1],
        )  # fmt: skip
    assert sync(folder.path).complete
    assert sent == []
    (folder.figures / "later.png").write_bytes(b"png")
    assert sync(folder.path).complete
    assert sent == ["log_artifact"]


def test_a_metric_row_larger_than_a_batch_arrives(client: MlflowClient, folder: RunFolder) -> None:
    with MetricsWriter(folder.metrics, None) as writer:
        writer.append(0, 0, {f"m{number}": number for number in range(2300)})
    assert sync(folder.path).rows_behind == 0
    assert len(client.get_run(_run_id(folder)).data.metrics) == 2300


def test_a_tracker_that_was_put_back_to_an_older_copy_gets_what_it_lost(
    client: MlflowClient, folder: RunFolder, store: TrackerSettings
) -> None:
    import sqlite3

    _log(folder, range(40))
    _finish(folder, 39)
    assert sync(folder.path).complete
    with sqlite3.connect(str(sqlite_path(store.uri))) as database:
        for table in ("metrics", "latest_metrics"):
            database.execute(f"DELETE FROM {table} WHERE run_uuid = ?", (_run_id(folder),))
        database.execute("DELETE FROM params WHERE run_uuid = ?", (_run_id(folder),))
    database.close()
    assert sync(folder.path).complete
    _assert_mirrored_exactly(client, folder)
    assert len(client.get_run(_run_id(folder)).data.params) == 114


def test_a_tracker_that_does_not_know_the_run_any_more_gets_a_new_record(
    client: MlflowClient, folder: RunFolder, store: TrackerSettings
) -> None:
    _log(folder, range(20))
    uid = folder.read_description().run_uid
    cursor = MirrorCursor(store.uri, store.experiment, uid, experiment_id="77", run_id="0" * 32, last_steps={"lr": 5})
    cursor.save(folder)
    _finish(folder, 19)
    assert sync(folder.path).complete
    _assert_mirrored_exactly(client, folder)


def test_a_run_that_was_made_twice_is_one_again_at_the_end(client: MlflowClient, folder: RunFolder) -> None:
    _log(folder, range(5))
    Mirror(folder).push(ended=False)
    experiment = client.get_run(_run_id(folder)).info.experiment_id
    uid = folder.read_description().run_uid
    client.create_run(experiment, tags={"jepa_lab.run_uid": uid})  # a request that was given up and arrived late
    _finish(folder, 4)
    assert sync(folder.path).complete
    (only,) = client.search_runs([experiment], f"tags.`jepa_lab.run_uid` = '{uid}'")
    assert only.info.run_id == _run_id(folder)


def test_a_deleted_run_is_not_made_a_second_time(client: MlflowClient, folder: RunFolder) -> None:
    _log(folder, range(5))
    Mirror(folder).push(ended=False)
    client.delete_run(_run_id(folder))
    folder.mirror.unlink()
    state = sync(folder.path)
    assert not state.complete
    assert f"mlflow runs restore --run-id {_run_id(folder)}" in str(state.error)


def test_sync_of_a_run_whose_process_is_gone_says_killed_and_of_a_living_one_running(
    client: MlflowClient, folder: RunFolder
) -> None:
    _log(folder, range(5))
    with FileLock(folder.path / "run.lock", "x") as run:
        run.acquire(0)
        assert folders_to_sync(folder.path.parent) == []
        state = sync(folder.path)
        assert (state.rows_behind, state.pending, state.still_sending) == (0, ("status",), True)
        assert client.get_run(_run_id(folder)).info.status == "RUNNING"
    assert folders_to_sync(folder.path.parent) == [folder.path]
    assert sync(folder.path).complete
    ended = client.get_run(_run_id(folder)).info
    assert (ended.status, ended.end_time) == ("KILLED", int(read_metrics(folder.metrics)[-1].time * 1000))
    assert folders_to_sync(folder.path.parent) == []


def test_a_mirror_that_finds_the_run_marked_as_ended_marks_it_as_running(
    client: MlflowClient, folder: RunFolder
) -> None:
    _log(folder, range(5))
    Mirror(folder).push(ended=False)
    client.set_terminated(_run_id(folder), "KILLED")  # by a mirror that died before it noted that
    Mirror(folder).push(ended=False)
    assert client.get_run(_run_id(folder)).info.status == "RUNNING"


def test_a_call_that_never_ends_is_ended(folder: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow_calls, "LONGEST_CALL_SECONDS", 0.2)
    with pytest.raises(TrackerAway, match="no complete answer"), mlflow_calls.tracker_calls():
        threading.Event().wait(60)
    assert signal.getitimer(signal.ITIMER_REAL)[0] == 0 or "PYTEST_TIMEOUT" in os.environ


def test_a_mirror_that_cannot_get_the_lock_ends_with_its_parent(folder: RunFolder) -> None:
    class Gone(ParentWatch):
        def __init__(self) -> None:
            """A parent that has ended."""

        def ended(self) -> bool:
            return True

    with FileLock(folder.mirror_lock, "x") as held:
        held.acquire(0)
        assert follow(folder, Gone(), grace_seconds=0.1) is False


def test_sync_refuses_what_it_cannot_complete(folder: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="not a run folder"):
        sync(tmp_path)
    with FileLock(folder.mirror_lock, "x") as held:
        held.acquire(0)
        assert sync(folder.path, lock_seconds=0).still_sending
    folder.write_description(RunDescription({}, {}, tracker=None))
    with pytest.raises(ConfigError, match="tracking: none"):
        sync(folder.path)


def test_a_tracker_that_is_gone_is_reported_and_nothing_is_lost(folder: RunFolder) -> None:
    _log(folder, range(5))
    nowhere = TrackerSettings("http://127.0.0.1:9", None, "e", None, 1.0)  # the discard port: nobody listens
    folder.write_description(RunDescription({}, {}, tracker=nowhere))
    state = sync(folder.path)
    assert (state.complete, state.rows_behind) == (False, 5)
    assert "127.0.0.1" in str(state.error)
    assert "jepa-lab sync" in state.sentence(folder.path)


def test_the_store_keeps_a_write_ahead_log(store: TrackerSettings) -> None:
    import sqlite3

    connection = sqlite3.connect(str(sqlite_path(store.uri)))
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


def _tracker(store: TrackerSettings) -> MlflowTracker:
    return MlflowTracker(MlflowParams(uri=store.uri, flush_seconds=0.2))


def test_the_mirror_process_follows_a_run_and_ends_with_it(
    client: MlflowClient, folder: RunFolder, store: TrackerSettings
) -> None:
    tracker = _tracker(store)
    tracker.start(folder)
    _log(folder, range(200))
    _finish(folder, 199)
    state = tracker.close(timeout_seconds=120)
    assert state.complete, state
    _assert_mirrored_exactly(client, folder)
    assert client.get_run(_run_id(folder)).info.status == "FINISHED"


def test_the_mirror_process_drains_and_ends_when_the_run_is_killed(
    client: MlflowClient, folder: RunFolder, tmp_path: Path
) -> None:
    _log(folder, range(100))
    stop = tmp_path / "stop"
    script = tmp_path / "run.py"
    script.write_text(_KILLED_RUN)
    killed = subprocess.run([sys.executable, str(script), str(folder.path), str(stop)], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL
    deadline = time.monotonic() + 120
    while not _has_ended(folder) and time.monotonic() < deadline:
        time.sleep(0.1)
    ended_by_itself = _has_ended(folder)
    stop.touch()
    assert ended_by_itself
    assert mirror_state(folder).complete
    _assert_mirrored_exactly(client, folder)
    run = client.get_run(_run_id(folder))
    assert run.info.status == "KILLED"  # nobody said how it ended
    assert run.info.end_time == int(read_metrics(folder.metrics)[-1].time * 1000)


# A run that is killed while a worker that it forked lives on and holds the pipe to the mirror open.
_KILLED_RUN = """
import os, sys, time
from pathlib import Path
from jepa_lab.tracking.mlflow_tracker import MlflowParams, MlflowTracker
from jepa_lab.tracking.run_folder import RunFolder
from jepa_lab.tracking.uris import sqlite_path

MlflowTracker(MlflowParams(flush_seconds=60)).start(RunFolder.open(Path(sys.argv[1])))
if os.fork() == 0:
    end = time.monotonic() + 150
    while not os.path.exists(sys.argv[2]) and time.monotonic() < end:
        time.sleep(0.1)
    os._exit(0)
os.kill(os.getpid(), 9)
"""


def _has_ended(folder: RunFolder) -> bool:
    return folder.mirror_log.exists() and "MLflow has everything" in folder.mirror_log.read_text()


@pytest.mark.slow
def test_mirrors_that_start_at_once_on_a_fresh_store_all_succeed(tmp_path: Path) -> None:
    params = MlflowParams(uri=f"sqlite:///{tmp_path}/fresh/mlflow.db", flush_seconds=0.2)
    trackers = []
    for seed in range(4):
        tracker = MlflowTracker(params)
        folder = RunFolder.create(tmp_path / "runs", "run", "0123456789", seed, "")
        folder.write_description(RunDescription({"seed": str(seed)}, {}, tracker=tracker.settings()))
        tracker.start(folder)
        _log(folder, range(20))
        _finish(folder, 19)
        trackers.append((tracker, folder))
    states = [tracker.close(timeout_seconds=240) for tracker, _ in trackers]
    assert all(state.complete for state in states), states
    settings = trackers[0][0].settings()
    assert settings is not None
    client = connect(settings)
    for _, folder in trackers:
        _assert_mirrored_exactly(client, folder)
        assert "Traceback" not in folder.mirror_log.read_text()
    assert len({client.get_run(_run_id(folder)).info.experiment_id for _, folder in trackers}) == 1


@pytest.mark.slow
def test_mlflow_says_nothing_on_the_terminal(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    settings = MlflowTracker(MlflowParams(uri=f"sqlite:///{tmp_path}/mlflow.db")).settings()
    folder = RunFolder.create(tmp_path / "runs", "run", "0123456789", 0, "")
    folder.write_description(RunDescription({}, {}, tracker=settings))
    _log(folder, range(3))
    _finish(folder, 2)
    assert sync(folder.path).complete  # alembic alone would say a hundred lines here
    captured = capfd.readouterr()
    assert captured.out + captured.err == ""
