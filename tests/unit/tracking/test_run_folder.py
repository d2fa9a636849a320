"""Run folders: names, collisions, what is refused, and what their files hold."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import threading
from pathlib import Path

import pytest

from jepa_lab.errors import ConfigError, RunFolderError, RunStopped
from jepa_lab.tracking import atomic
from jepa_lab.tracking.description import DatasetRecord, RunDescription, TrackerSettings, flat_params
from jepa_lab.tracking.environment import _git_state, describe_environment
from jepa_lab.tracking.records import write_record
from jepa_lab.tracking.run_folder import RunFolder


def _create(root: Path, name: str = "digits") -> RunFolder:
    return RunFolder.create(root, name, "0123456789abcdef", 3, "name: digits\n")


def test_the_folder_is_named_after_name_digest_and_seed(tmp_path: Path) -> None:
    folder = _create(tmp_path / "new" / "runs")
    assert folder.path == tmp_path / "new" / "runs" / "digits-01234567-s3"
    assert folder.config.read_text().endswith("version 1\nname: digits\n")
    assert folder.checkpoints.is_dir()
    assert folder.figures.is_dir()


def test_a_config_of_a_newer_format_is_refused(tmp_path: Path) -> None:
    folder = _create(tmp_path)
    folder.config.write_text(folder.config.read_text().replace("version 1", "version 2"))
    with pytest.raises(RunFolderError, match="format version 2, this jepa-lab reads 1"):
        RunFolder.open(folder.path)


def test_a_run_folder_is_never_half_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        assert [path.name for path in tmp_path.iterdir() if not path.name.startswith(".")] == []
        raise KeyboardInterrupt

    monkeypatch.setattr("jepa_lab.tracking.run_folder.write_text_atomically", fail)
    with pytest.raises(KeyboardInterrupt):
        _create(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_process_left_unnamed_is_removed_when_it_is_old(tmp_path: Path) -> None:
    old, fresh = tmp_path / ".new-run-old", tmp_path / ".new-run-fresh"
    for folder in (old, fresh):
        folder.mkdir()
    os.utime(old, (0, 0))
    made = _create(tmp_path)
    assert sorted(tmp_path.iterdir()) == [fresh, made.path]


def test_runs_of_the_same_config_get_numbers(tmp_path: Path) -> None:
    assert [_create(tmp_path).name for _ in range(3)] == [
        "digits-01234567-s3",
        "digits-01234567-s3-2",
        "digits-01234567-s3-3",
    ]


def test_runs_started_at_once_never_share_a_folder(tmp_path: Path) -> None:
    made: list[Path] = []
    threads = [threading.Thread(target=lambda: made.append(_create(tmp_path).path)) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(made)) == 16


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "a/b", "/tmp/x", ".hidden", "a\0b", "a\n", "a b", "~", "ä", "x" * 101, "a\\b"],
)
def test_a_name_that_could_leave_the_run_root_is_refused(tmp_path: Path, name: str) -> None:
    root = tmp_path / "runs"
    with pytest.raises(ConfigError, match="name must be"):
        _create(root, name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["a", "A-1", "x_y.z", "-dash", "x" * 100])
def test_a_legal_name_stays_in_the_run_root(tmp_path: Path, name: str) -> None:
    assert _create(tmp_path, name).path.resolve().parent == tmp_path.resolve()


def test_a_run_root_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "runs").touch()
    with pytest.raises(RunFolderError, match="choose another"):
        _create(tmp_path / "runs")
    with pytest.raises(RunFolderError, match="choose another"):
        _create(tmp_path / "runs" / "below")


def test_a_run_root_without_write_permission_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)  # the tests may run as root, who may write everywhere
    with pytest.raises(RunFolderError, match="Permission denied"):
        _create(tmp_path / "runs")


def test_a_full_disk_leaves_no_half_made_run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(atomic.os, "replace", full)
    with pytest.raises(RunStopped):
        _create(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_run_folder_opens_again_also_after_it_was_moved(tmp_path: Path) -> None:
    folder = _create(tmp_path / "runs")
    folder.path.rename(tmp_path / "moved ö")
    opened = RunFolder.open(tmp_path / "moved ö")
    assert opened.config.read_text().endswith("version 1\nname: digits\n")
    assert opened.name == "moved ö"


def test_a_folder_that_is_not_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunFolderError, match="no run folder"):
        RunFolder.open(tmp_path / "missing")
    with pytest.raises(RunFolderError, match="not a run folder"):
        RunFolder.open(tmp_path)
    (tmp_path / "config.yaml").touch()
    with pytest.raises(RunFolderError, match="not a run folder"):
        RunFolder.open(tmp_path)


def test_the_environment_holds_versions_and_the_command_but_no_credentials_or_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MY_SECRET_TOKEN", "hunter2-from-environment")
    folder = _create(tmp_path)
    command = ["jepa-lab", "run", "tracking.uri=http://ann:pa%40ss@host:80/x"]
    folder.write_environment(describe_environment(command, "cpu"))
    text = folder.environment.read_text()
    held = json.loads(text)
    assert held["format_version"] == 1
    assert {"torch", "torchvision", "numpy", "scikit-learn"} == set(held["packages"])
    assert held["command"][2] == "tracking.uri=http://host:80/x"
    assert held["device"] == "cpu"
    assert held["cpu_count"] == os.cpu_count()
    assert "hunter2" not in text


def test_the_environment_names_the_commit_and_whether_the_code_was_changed(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        command = ["git", "-C", str(tmp_path), *identity, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").touch()
    git("init")
    assert _git_state(package) is None, "in a checkout that does not track it"
    git("add", ".")
    git("commit", "-m", "first")
    assert _git_state(package) == {"commit": git("rev-parse", "HEAD"), "dirty": False}
    (package / "__init__.py").write_text("changed = True\n")
    assert _git_state(package) == {"commit": git("rev-parse", "HEAD"), "dirty": True}


def test_the_layout_of_run_json(tmp_path: Path) -> None:
    folder = _create(tmp_path)
    description = RunDescription(
        params={"masker.num_targets": "4"},
        tags={"masker": "multi_block", "seed": "3"},
        dataset=DatasetRecord("digits", "scikit-learn", "abc"),
        tracker=TrackerSettings("sqlite:////x/mlflow.db", None, "jepa-lab", None, 5.0, "tracking.uri", "default"),
        run_uid="u1",
        started=12.5,
    )
    folder.write_description(description)
    held = json.loads(folder.description.read_text())
    checksum = held.pop("sha256")
    assert len(checksum) == 64
    assert held == {
        "format": "jepa-lab run",
        "format_version": 2,
        "params": {"masker.num_targets": "4"},
        "tags": {"masker": "multi_block", "seed": "3"},
        "dataset": {"name": "digits", "source": "scikit-learn", "digest": "abc"},
        "tracker": {
            "uri": "sqlite:////x/mlflow.db",
            "artifact_location": None,
            "experiment": "jepa-lab",
            "run_name": None,
            "flush_seconds": 5.0,
            "uri_from": "tracking.uri",
            "experiment_from": "default",
        },
        "run_uid": "u1",
        "started": 12.5,
    }
    assert folder.read_description() == description


def test_a_run_json_from_before_the_origin_of_its_store_was_kept_is_read(tmp_path: Path) -> None:
    folder = _create(tmp_path)
    old = {"uri": "http://host", "artifact_location": None, "experiment": "e", "run_name": None, "flush_seconds": 5.0}
    content = {"params": {}, "tags": {}, "dataset": None, "tracker": old, "run_uid": "u1", "started": 1.0}
    write_record(folder.description, "run", 1, content)
    assert folder.read_description().tracker == TrackerSettings("http://host", None, "e", None, 5.0, "", "")


def test_a_run_that_goes_on_keeps_its_identity_and_its_start(tmp_path: Path) -> None:
    folder = _create(tmp_path)
    folder.write_description(RunDescription(params={}, tags={}, started=1.0))
    first = folder.read_description()
    folder.write_description(RunDescription(params={}, tags={"resumed": "yes"}, started=2.0))
    second = folder.read_description()
    assert (second.run_uid, second.started) == (first.run_uid, 1.0)
    assert second.tags == {"resumed": "yes"}


def test_the_result_says_how_the_run_ended_and_where_its_weights_are(tmp_path: Path) -> None:
    folder = _create(tmp_path)
    assert folder.read_result() is None
    folder.write_result(
        "FINISHED", {"rank": float("inf"), "gap": None}, 10, folder.checkpoints / "step-00000010", table=[1]
    )
    result = folder.read_result()
    assert result is not None
    assert result.pop("ended") > 0
    assert result == {
        "table": [1],
        "run_uid": "",
        "tracking": None,
        "status": "FINISHED",
        "last_step": 10,
        "final_checkpoint": "checkpoints/step-00000010",
        "metrics": {"rank": "inf", "gap": None},
    }
    folder.remove_result()
    assert folder.read_result() is None


def test_flat_params_are_dotted_and_lists_are_json() -> None:
    config = {"a": {"b": [1, "x"], "c": None, "d": True, "e": {}}, "f": "text", "g": 1e-3, "h": [{"i": 1}]}
    assert flat_params(config) == {
        "a.b": '[1, "x"]',
        "a.c": "null",
        "a.d": "true",
        "a.e": "{}",
        "f": "text",
        "g": "0.001",
        "h": '[{"i": 1}]',
    }


def test_the_log_holds_messages_and_the_traceback_of_a_crash_without_credentials(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = _create(tmp_path)

    def crash() -> None:
        logging.getLogger("jepa_lab.training").info("connecting to http://ann:secret@host")
        raise ZeroDivisionError("at postgresql://ann:secret@host/db")

    with pytest.raises(ZeroDivisionError), folder.open_log():
        crash()
    logging.getLogger("jepa_lab").warning("after the end")
    text = folder.log.read_text()
    assert "connecting to http://host" in text
    assert "Traceback" in text
    assert "ZeroDivisionError: at postgresql://host/db" in text
    assert "secret" not in text
    assert "after the end" not in text
    assert "Traceback" not in caplog.text  # the terminal does not see it


def test_the_log_of_a_user_error_has_its_message_and_no_traceback(tmp_path: Path) -> None:
    folder = _create(tmp_path)
    with pytest.raises(ConfigError), folder.open_log():
        raise ConfigError("x must be 1, got 2")
    assert "x must be 1, got 2" in folder.log.read_text()
    assert "Traceback" not in folder.log.read_text()
