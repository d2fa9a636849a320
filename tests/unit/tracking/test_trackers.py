"""Trackers' parameters, credentials, locks, and the mirror's cursor; nothing here imports MLflow."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

import jepa_lab.tracking
from jepa_lab.errors import ConfigError, RunFolderError
from jepa_lab.tracking.base import TRACKERS, MirrorState
from jepa_lab.tracking.credentials import (
    FULL_URI_VARIABLE,
    credential_environment,
    scrub,
    with_credentials,
    without_credentials,
)
from jepa_lab.tracking.description import RunDescription, TrackerSettings
from jepa_lab.tracking.locks import FileLock
from jepa_lab.tracking.metrics import MetricsWriter
from jepa_lab.tracking.mirror_cursor import MirrorCursor, artifact_digests, load_cursor, mirror_state
from jepa_lab.tracking.mlflow_names import MAX_PARAM_VALUE, legal_name, legal_params, legal_tags
from jepa_lab.tracking.mlflow_tracker import MlflowParams, MlflowTracker
from jepa_lab.tracking.run_folder import RunFolder
from jepa_lab.tracking.ui import serve_ui

SETTINGS = TrackerSettings("sqlite:////x/mlflow.db", None, "e", None, 1.0)


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    made = RunFolder.create(tmp_path, "run", "0123456789", 0, "name: run\n")
    made.write_description(RunDescription({}, {}, tracker=SETTINGS))
    return made


def test_both_trackers_are_registered() -> None:
    assert jepa_lab.tracking
    assert TRACKERS.names() == ["mlflow", "none"]


def test_training_code_imports_neither_mlflow_nor_torch_with_the_tracker() -> None:
    code = (
        "import sys; import jepa_lab.tracking.mlflow_tracker, jepa_lab.tracking.mirror, jepa_lab.tracking.ui;"
        "print(sorted({'mlflow', 'torch', 'pandas', 'sqlalchemy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_default_store_is_a_sqlite_file_in_the_current_folder_with_artifacts_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = MlflowTracker(MlflowParams()).settings()
    assert settings is not None
    assert settings.uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert settings.artifact_location == (tmp_path / "mlflow-artifacts").as_uri()


def test_a_relative_sqlite_file_is_found_again_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    settings = MlflowTracker(MlflowParams(uri="sqlite:///sub/x.db?timeout=5")).settings()
    assert settings is not None
    assert settings.uri == f"sqlite:///{tmp_path}/sub/x.db?timeout=5"


@pytest.mark.parametrize(
    "uri",
    ["", "./mlruns", "file:///tmp/mlruns", "ftp://x", "sqlite://", "sqlite:///:memory:", "http://u:p/w@host"],
)
def test_a_uri_that_is_no_tracker_is_refused_with_a_remedy_and_without_its_password(uri: str) -> None:
    with pytest.raises(ValidationError) as caught:
        MlflowParams(uri=uri)
    message = caught.value.errors()[0]["msg"]
    assert "uri" in message
    assert "p/w" not in message


@pytest.mark.parametrize(
    ("uri", "bare"),
    [
        ("http://ann:pa55@host:5000/x", "http://host:5000/x"),
        ("https://token@host", "https://host"),
        (
            "postgresql+psycopg2://ann:p%40ss@host/db?sslmode=require",
            "postgresql+psycopg2://host/db?sslmode=require",
        ),
        ("postgresql://host/db?user=ann&password=pa55&sslmode=x", "postgresql://host/db?sslmode=x"),
        ("postgresql://host/db?password=pa55", "postgresql://host/db"),
        ("http://ann:p@a@host/x", "http://host/x"),
        ("sqlite:////home/me@work/mlflow.db", "sqlite:////home/me@work/mlflow.db"),
        ("http://host/a@b", "http://host/a@b"),
    ],
)
def test_credentials_leave_a_uri_and_nothing_else_does(uri: str, bare: str) -> None:
    assert without_credentials(uri) == bare
    assert without_credentials(bare) == bare
    assert scrub(f"error at '{uri}': refused").count("pa55") == 0


def test_a_tracker_shows_its_password_nowhere(folder: RunFolder) -> None:
    params = MlflowParams(uri="postgresql://ann:hunter2@host/db")
    tracker = MlflowTracker(params)
    folder.write_description(RunDescription({}, {}, tracker=tracker.settings()))
    shown = [
        repr(params),
        str(params),
        str(params.model_dump()),
        params.model_dump_json(),
        tracker.describe(),
    ]
    shown += [path.read_text() for path in folder.path.rglob("*") if path.is_file()]
    assert not [text for text in shown if "hunter2" in text or "ann" in text]
    assert "host/db" in params.model_dump_json()


def test_the_mirror_gets_the_credentials_through_its_environment() -> None:
    assert credential_environment("http://ann:p%40ss@host") == {
        "MLFLOW_TRACKING_USERNAME": "ann",
        "MLFLOW_TRACKING_PASSWORD": "p@ss",
    }
    assert credential_environment("sqlite:///x.db") == {}
    full = "postgresql://ann:p@host/db"
    environment = credential_environment(full)
    assert with_credentials("postgresql://host/db", environment) == full
    assert with_credentials("postgresql://other/db", environment) == "postgresql://other/db"
    assert set(environment) == {FULL_URI_VARIABLE}


def test_a_second_owner_of_a_lock_is_refused_until_the_first_lets_go(tmp_path: Path) -> None:
    first, second = FileLock(tmp_path / "l", "the thing"), FileLock(tmp_path / "l", "the thing")
    first.acquire(0)
    with pytest.raises(RunFolderError, match="at work on the thing"):
        second.acquire(0.1)
    first.release()
    second.acquire(0)
    second.release()


def test_a_dead_owner_does_not_hold_a_lock(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from jepa_lab.tracking.locks import FileLock;"
        "FileLock(Path(sys.argv[1]), 'x').acquire(0); os.kill(os.getpid(), 9)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "l")], check=False)
    assert done.returncode == -9
    with FileLock(tmp_path / "l", "x") as lock:
        assert lock.try_acquire()


def test_names_and_values_keep_mlflows_limits() -> None:
    assert legal_name("train/loss") == "train/loss"
    assert legal_name("mlflow.parentRunId") == "mlflow.parentRunId"
    assert legal_name("a@b+c[0]") == "a_b_c_0_"
    assert legal_name("../x//y") == "x/y"
    assert legal_name("") == "_"
    params, cut = legal_params({"a@": "1", "a+": "2", "long": "x" * (MAX_PARAM_VALUE + 1)})
    assert params == {"a_": "1", "a__2": "2", "long": "x" * MAX_PARAM_VALUE}
    assert cut == ["long"]
    assert legal_tags({"t": "y" * 9000})["t"].endswith("y...")


def test_a_cursor_survives_and_a_damaged_one_is_started_anew(folder: RunFolder) -> None:
    cursor = MirrorCursor(SETTINGS.uri, SETTINGS.experiment, run_id="r", last_steps={"a": 4})
    cursor.save(folder)
    assert load_cursor(folder, SETTINGS) == cursor
    content = bytearray(folder.mirror.read_bytes())
    content[content.index(b'"a": 4') + 5] = ord("9")  # a step that was never acknowledged
    folder.mirror.write_bytes(content)
    assert load_cursor(folder, SETTINGS) == MirrorCursor(SETTINGS.uri, SETTINGS.experiment)


def test_a_cursor_of_another_tracker_is_not_used(folder: RunFolder) -> None:
    MirrorCursor("http://elsewhere", SETTINGS.experiment, run_id="r").save(folder)
    assert load_cursor(folder, SETTINGS).run_id is None


def test_the_state_counts_what_the_tracker_lacks(folder: RunFolder) -> None:
    with MetricsWriter(folder.metrics, None) as writer:
        for step in range(5):
            writer.append(step, 0, {"a": 1.0})
        folder.write_result("FINISHED", {"test": 0.5}, 4, folder.checkpoints / "step-4")
        cursor = MirrorCursor(SETTINGS.uri, SETTINGS.experiment, run_id="r", last_steps={"a": 2})
        cursor.save(folder)
        state = mirror_state(folder)
        assert state.rows_behind == 2
        assert state.pending == ("parameters", "artifacts", "summary metrics", "model", "status")
        assert not state.complete
        assert f"jepa-lab sync {folder.path}" in state.sentence(folder.path)
        cursor.last_steps = {"a": 4, "test": 4}
        cursor.described, cursor.model, cursor.status = True, "checkpoints/step-4", "FINISHED"
        cursor.artifacts = artifact_digests(folder)
        cursor.save(folder)
        assert mirror_state(folder) == MirrorState()
        (folder.figures / "confusion.png").write_bytes(b"later")
        assert mirror_state(folder).pending == ("artifacts",)


def test_without_a_tracker_nothing_is_missing(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "run", "0123456789", 0, "")
    entry = TRACKERS.get("none")
    tracker = entry.component(entry.config_type())
    folder.write_description(RunDescription({}, {}, tracker=tracker.settings()))
    tracker.start(folder)
    assert tracker.close(0).complete
    assert mirror_state(folder).complete


def test_the_ui_refuses_a_missing_database_and_a_port_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match="run a pipeline first"):
        serve_ui(None, 5000)
    (tmp_path / "mlflow.db").touch()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigError, match="--port"):
            serve_ui(None, taken.getsockname()[1])
    with pytest.raises(ConfigError, match="sqlite:///"):
        serve_ui("./mlruns", 5000)


def test_the_ui_of_a_server_is_the_server_itself_shown_without_credentials() -> None:
    said: list[str] = []
    serve_ui("http://ann:secret@host:80", 5000, say=said.append)
    assert said == ["http://host:80 is a tracking server; open that address in a browser"]
