"""Trackers' parameters, credentials, locks, and the mirror's cursor; nothing here imports MLflow."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from click.testing import CliRunner
from pydantic import ValidationError

import jepa_lab.tracking
from jepa_lab.cli import main
from jepa_lab.errors import ConfigError, RunFolderError
from jepa_lab.pages import Place
from jepa_lab.tracking.base import TRACKERS, MirrorState
from jepa_lab.tracking.credentials import (
    FULL_URI_VARIABLE,
    connection_uri,
    credential_environment,
    scrub,
    server_credentials,
    with_credentials,
    without_credentials,
)
from jepa_lab.tracking.description import RunDescription, TrackerSettings
from jepa_lab.tracking.locks import FileLock
from jepa_lab.tracking.metrics import MetricsWriter
from jepa_lab.tracking.mirror import pause_seconds
from jepa_lab.tracking.mirror_cursor import MirrorCursor, artifact_digests, load_cursor, mirror_state, new_cursor
from jepa_lab.tracking.mlflow_names import (
    MAX_NAME,
    MAX_PARAM_VALUE,
    MAX_TAG_VALUE,
    batches,
    legal_model_name,
    legal_name,
    legal_params,
    legal_tags,
)
from jepa_lab.tracking.mlflow_tracker import MlflowParams, MlflowTracker
from jepa_lab.tracking.run_folder import RunFolder
from jepa_lab.tracking.ui import serve_ui
from tests.integration.pipelines import TINY, write_tiny

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
    [
        "", "./mlruns", "file:///tmp/mlruns", "ftp://x", "sqlite://", "sqlite:///:memory:",
        "http://u:p/w@host", "http://u:1p/w@host", "postgresql://u:1/p/w@host/db", "postgresql://u:1?p/w@host/db",
        "http://u:p w@host", "http://host?token=p/w", "http://host/#p/w",
    ],
)  # fmt: skip
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
        ("http://ann:p%40%3A%25%2Fpa55'!$@host", "http://host"),
        ("http://host/x?access_token=pa55", "http://host/x"),
        ("postgresql://host/db?a=1&X-Amz-Signature=pa55&ssl_pwd=pa55", "postgresql://host/db?a=1"),
        ("mssql+pyodbc:///?odbc_connect=Server%3Dx%3BPWD%3Dpa55", "mssql+pyodbc:///"),
        ("sqlite:////home/me@work/mlflow.db", "sqlite:////home/me@work/mlflow.db"),
        ("http://host/a@b", "http://host/a@b"),
    ],
)
def test_credentials_leave_a_uri_and_nothing_else_does(uri: str, bare: str) -> None:
    assert without_credentials(uri) == bare
    assert without_credentials(bare) == bare
    assert scrub(f"error at '{uri}': refused").count("pa55") == 0


def test_an_artifact_location_with_a_password_is_refused_without_repeating_it() -> None:
    with pytest.raises(ValidationError) as caught:
        MlflowParams(artifact_location="sftp://ann:hunter2@host/artifacts")
    message = caught.value.errors()[0]["msg"]
    assert "artifact_location" in message
    assert "hunter2" not in message
    assert MlflowParams(artifact_location="sftp://ann@host/artifacts").artifact_location


_SECRET = "s%40%3Acr3t'!$"
_WRONG = {
    "an invalid uri": "tracking={{name: mlflow, uri: 'http://ann:{secret}@host:99999'}}",
    "an unknown scheme": "tracking.uri=ftp://ann:{secret}@host",
    "a key below the uri": "tracking.uri.x=1",
    "an override without a key": "http://ann:{secret}@host",
    "an unknown key": "tracking.url=http://ann:{secret}@host",
    "a value that is no YAML": "tracking.uri={{http://ann:{secret}@host",
    "a list": "tracking.uri=[http://ann:{secret}@host]",
}


@pytest.mark.parametrize("command", ["check", "run"])
@pytest.mark.parametrize("wrong", list(_WRONG))
def test_no_message_about_a_wrong_setting_repeats_a_password(tmp_path: Path, wrong: str, command: str) -> None:
    text = TINY.replace("tracking: none", f'tracking: {{name: mlflow, uri: "http://ann:{_SECRET}@host"}}')
    file = write_tiny(tmp_path, text)
    result = CliRunner().invoke(main, [command, str(file), _WRONG[wrong].format(secret=_SECRET)])
    assert result.exit_code == 2, result.output
    assert "cr3t" not in result.output
    assert "error:" in result.output


def test_no_message_about_a_yaml_file_repeats_its_password(tmp_path: Path) -> None:
    for value in (f"http://ann:{_SECRET}@host:x", f"{{http://ann:{_SECRET}@host", f"[http://ann:{_SECRET}@host]"):
        text = TINY.replace("tracking: none", f"tracking: {{name: mlflow, uri: {value}}}")
        result = CliRunner().invoke(main, ["check", str(write_tiny(tmp_path, text))])
        assert result.exit_code == 2, result.output
        assert "cr3t" not in result.output


def test_a_crash_tells_no_password_in_any_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def crash(*_: object, **__: object) -> None:
        raise ZeroDivisionError(f"at postgresql://ann:{_SECRET}@host/db")

    monkeypatch.setattr("jepa_lab.composition.work.final_evaluation", crash)
    result = CliRunner().invoke(main, ["run", str(write_tiny(tmp_path)), "--runs", str(tmp_path / "runs")])
    assert result.exit_code == 1
    assert "ZeroDivisionError" in result.output
    assert "cr3t" not in result.output
    texts = [path.read_bytes() for path in (tmp_path / "runs").rglob("*") if path.is_file()]
    assert any(b"ZeroDivisionError" in text for text in texts)
    assert not [text for text in texts if b"cr3t" in text]


def test_no_message_of_the_ui_repeats_a_password(tmp_path: Path) -> None:
    uri = f"http://ann:{_SECRET}@host"
    for arguments in ([uri], ["--uri", f"{uri}:x"], ["--uri", f"ftp{uri}"], ["--port", uri]):
        result = CliRunner().invoke(main, ["ui", *arguments])
        assert result.exit_code == 2, result.output
        assert "cr3t" not in result.output


def test_the_ui_gives_its_server_the_store_through_the_environment_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[list[str], dict[str, str]]] = []

    def start(command: list[str], env: dict[str, str], **_: object) -> NoReturn:
        started.append((command, env))
        raise FileNotFoundError

    monkeypatch.setattr(subprocess, "Popen", start)
    with pytest.raises(FileNotFoundError):
        serve_ui(f"postgresql://ann:{_SECRET}@host/db", Place(_free_port()))
    ((command, environment),) = started
    assert "cr3t" not in " ".join(command)
    assert any("cr3t" in value for value in environment.values())


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_server_of_the_ui_which_a_second_one_does_not_disturb(
    monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    said, stopped = [], []

    def wait_for_signal(*_: object) -> None:
        os.kill(os.getpid(), number)
        pytest.fail("the signal must end the waiting")

    def stop(server: object) -> None:
        os.kill(os.getpid(), number)
        stopped.append(server)

    monkeypatch.setattr("jepa_lab.tracking.ui._start", lambda *_: "server")
    monkeypatch.setattr("jepa_lab.tracking.ui._wait_until_it_answers", wait_for_signal)
    monkeypatch.setattr("jepa_lab.tracking.ui._stop", stop)
    serve_ui("postgresql://host/db", Place(_free_port()), say=said.append)
    assert stopped == ["server"]
    assert said[-1] == "MLflow's pages are closed"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _tracker_with_mirror(folder: RunFolder, code: str) -> MlflowTracker:
    """A tracker whose mirror process runs `code`."""
    tracker = MlflowTracker(MlflowParams(uri="http://ann:secret@host"))
    tracker._folder = folder
    tracker._process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, start_new_session=True)
    return tracker


_MIRROR_THAT_WAITS = "import sys, time; sys.stdin.read(); time.sleep(60)"


def test_the_end_of_a_run_says_what_it_waits_for_and_what_to_do_instead(folder: RunFolder) -> None:
    tracker = _tracker_with_mirror(folder, _MIRROR_THAT_WAITS)
    assert tracker._process is not None
    said: list[str] = []
    state = tracker.close(0.05, say=said.append)
    assert state.still_sending
    (line,) = said
    assert "http://host" in line
    assert f"jepa-lab sync {folder.path}" in line
    assert "for up to" in line
    assert "secret" not in line
    tracker._process.kill()
    tracker._process.wait()


def test_a_run_that_leaves_at_once_does_not_say_that_it_waits(folder: RunFolder) -> None:
    tracker = _tracker_with_mirror(folder, _MIRROR_THAT_WAITS)
    assert tracker._process is not None
    said: list[str] = []
    assert tracker.close(0.0, say=said.append).still_sending
    assert said == []
    tracker._process.kill()
    tracker._process.wait()


def test_ctrl_c_ends_the_wait_for_the_tracker_alone(folder: RunFolder) -> None:
    tracker = _tracker_with_mirror(folder, _MIRROR_THAT_WAITS)
    assert tracker._process is not None
    press = threading.Timer(0.3, signal.raise_signal, [signal.SIGINT])
    state = tracker.close(60.0, say=lambda _: press.start())
    press.join()
    assert state.still_sending
    assert tracker._process.poll() is None  # the mirror goes on
    tracker._process.kill()
    tracker._process.wait()


def test_a_mirror_that_died_is_reported_with_its_log(folder: RunFolder) -> None:
    tracker = _tracker_with_mirror(folder, "import os; os._exit(7)")
    state = tracker.close(60.0, say=lambda _: None)
    assert "ended with code 7" in str(state.error)
    assert str(folder.mirror_log) in str(state.error)


def test_pauses_between_attempts_grow_up_to_a_bound_that_is_lower_at_the_end() -> None:
    running = [pause_seconds(failures, ended=False) for failures in range(1, 2000)]
    assert running[:5] == [1, 2, 4, 8, 16]
    assert set(running[5:]) == {30}
    assert max(pause_seconds(failures, ended=True) for failures in range(1, 100)) == 5


def test_params_are_sent_in_portions_that_a_server_takes() -> None:
    entries = {f"key {number}": "é" * 6000 for number in range(250)}
    portions = list(batches(entries, 100))
    assert {name: value for portion in portions for name, value in portion.items()} == entries
    assert max(len(json.dumps(portion)) for portion in portions) < 1_000_000  # the server's limit
    assert [len(portion) for portion in batches({str(number): "" for number in range(250)}, 100)] == [100, 100, 50]
    assert len(list(batches({"huge": "x" * 10**7}, 100))) == 1


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


@pytest.mark.parametrize("full", ["postgresql://ann:p@host/db", "http://ann:p%40ss@host", "https://token@host"])
def test_the_mirror_gets_the_credentials_through_its_environment(full: str) -> None:
    bare = without_credentials(full)
    environment = credential_environment(full)
    assert set(environment) == {FULL_URI_VARIABLE}
    assert with_credentials(bare, environment) == full
    assert with_credentials("postgresql://other/db", environment) == "postgresql://other/db"
    assert credential_environment(bare) == {}
    assert with_credentials(bare, {"MLFLOW_TRACKING_URI": full}) == full
    assert with_credentials(bare, {FULL_URI_VARIABLE: bare, "MLFLOW_TRACKING_URI": full}) == full


def test_a_password_is_at_hand_for_requests_to_its_own_server_and_for_no_longer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def held() -> tuple[str | None, str | None]:
        return os.environ.get("MLFLOW_TRACKING_USERNAME"), os.environ.get("MLFLOW_TRACKING_PASSWORD")

    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "everywhere")
    full = "http://ann:p%40ss@host"
    with server_credentials(full):
        assert held() == ("ann", "p@ss")
    assert held() == ("everywhere", None)
    for other in ("http://host", "https://token@host", "postgresql://ann:p@host/db", "sqlite:///x.db"):
        with server_credentials(other):
            assert held() == ("everywhere", None)
        assert connection_uri(other) == other
    assert connection_uri(full) == "http://host"


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
    params, cut = legal_params({"a@": "1", "a+": "2", "fits": "x" * MAX_PARAM_VALUE})
    assert params == {"a_": "1", "a__2": "2", "fits": "x" * MAX_PARAM_VALUE}
    assert cut == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # MLflow's own
@pytest.mark.filterwarnings("ignore::FutureWarning:mlflow")
@pytest.mark.parametrize("name", ["tiny-0123-s0", "a%20b", "a'b", 'a"b', "a:b.c", "a/b", "ä?#&;"])
def test_a_run_folder_of_any_name_gives_a_model_name_that_mlflow_takes(name: str) -> None:
    from mlflow.utils.validation import _validate_logged_model_name

    _validate_logged_model_name(legal_model_name(name))
    assert legal_model_name("tiny-0123-s0") == "tiny-0123-s0"


def test_a_value_that_is_too_long_ends_with_the_digest_of_the_whole() -> None:
    value = "x" * MAX_PARAM_VALUE + "é"
    params, cut = legal_params({"long": value})
    assert cut == ["long"]
    assert len(params["long"]) == MAX_PARAM_VALUE
    beginning, _, digest = params["long"].partition("... sha256:")
    assert value.startswith(beginning)
    assert len(beginning) > MAX_PARAM_VALUE - 100
    assert digest == hashlib.sha256(value.encode()).hexdigest()


@pytest.mark.parametrize(
    ("cut", "limit"),
    [
        (lambda text: legal_params({"key": text})[0]["key"], MAX_PARAM_VALUE),
        (lambda text: legal_tags({"key": text})["key"], MAX_TAG_VALUE),
        (legal_name, MAX_NAME),
    ],
    ids=["param", "tag", "name"],
)
def test_texts_that_differ_only_after_mlflows_limit_stay_different(cut: Callable[[str], str], limit: int) -> None:
    first, second = cut("x" * limit + "1"), cut("x" * limit + "2")
    assert first != second
    assert len(first) == len(second) == limit
    assert cut("x" * limit) == "x" * limit


def test_a_cursor_survives_and_a_damaged_one_is_started_anew(folder: RunFolder) -> None:
    cursor = MirrorCursor(
        SETTINGS.uri, SETTINGS.experiment, folder.read_description().run_uid, run_id="r", last_steps={"a": 4}
    )
    cursor.save(folder)
    assert load_cursor(folder, folder.read_description()) == cursor
    content = bytearray(folder.mirror.read_bytes())
    content[content.index(b'"a": 4') + 5] = ord("9")  # a step that was never acknowledged
    folder.mirror.write_bytes(content)
    assert load_cursor(folder, folder.read_description()) == new_cursor(folder.read_description())


def test_a_cursor_of_another_tracker_is_not_used(folder: RunFolder) -> None:
    MirrorCursor("http://elsewhere", SETTINGS.experiment, folder.read_description().run_uid, run_id="r").save(folder)
    assert load_cursor(folder, folder.read_description()).run_id is None


def test_the_state_counts_what_the_tracker_lacks(folder: RunFolder) -> None:
    with MetricsWriter(folder.metrics, None) as writer:
        for step in range(5):
            writer.append(step, 0, {"a": 1.0})
        folder.write_result("FINISHED", {"test": 0.5}, 4, folder.checkpoints / "step-4")
        cursor = MirrorCursor(
            SETTINGS.uri, SETTINGS.experiment, folder.read_description().run_uid, run_id="r", last_steps={"a": 2}
        )
        cursor.save(folder)
        state = mirror_state(folder)
        assert state.rows_behind == 2
        assert state.pending == ("parameters", "artifacts", "summary metrics", "model", "status")
        assert not state.complete
        assert f"jepa-lab sync {folder.path}" in state.sentence(folder.path)
        assert f"jepa-lab sync '{folder.path} x'" in state.sentence(Path(f"{folder.path} x"))
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
        serve_ui(None, Place(5000))
    (tmp_path / "mlflow.db").touch()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigError, match="--port"):
            serve_ui(None, Place(taken.getsockname()[1]))
    with pytest.raises(ConfigError, match="sqlite:///"):
        serve_ui("./mlruns", Place(5000))


def test_the_ui_of_a_server_is_a_link_to_its_runs_without_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def link(server: str, shown: str, experiment: str) -> str:
        asked.append(server)
        return f"{shown}/#/experiments/7/runs"

    monkeypatch.setattr("jepa_lab.tracking.ui.runs_link", link)
    said: list[str] = []
    opened: list[str] = []
    serve_ui("http://ann:secret@host:80", Place(5000), say=said.append, show=opened.append)
    assert asked == ["http://ann:secret@host:80"]
    assert said == [
        "http://host:80 (from --uri) is a tracking server; its runs are at http://host:80/#/experiments/7/runs"
    ]
    assert opened == ["http://host:80/#/experiments/7/runs"]
