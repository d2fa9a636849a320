"""Which store and experiment a command uses: what was written, recorded, said by the environment, then the default."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from jepa_lab.cli import main
from jepa_lab.composition.tracker import build_tracker
from jepa_lab.config.loading import config_digest, load_pipeline
from jepa_lab.errors import ConfigError
from jepa_lab.pages import Place
from jepa_lab.sweeps.folder import SweepFolder
from jepa_lab.tracking.description import RunDescription, TrackerSettings
from jepa_lab.tracking.mlflow_tracker import MlflowParams, MlflowTracker
from jepa_lab.tracking.run_folder import RunFolder
from jepa_lab.tracking.store_choice import RecordedPlace
from jepa_lab.tracking.ui import serve_ui
from tests.integration.pipelines import load_tiny, write_tiny

RECORDED = RecordedPlace(TrackerSettings("http://recorded", None, "recorded", None, 1.0), "the run folder")


def _chosen(params: MlflowParams, recorded: RecordedPlace | None = None) -> dict[str, str]:
    settings = MlflowTracker(params, recorded).settings()
    assert settings is not None
    return settings.record()


def test_the_setting_comes_before_the_record_the_environment_and_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert _chosen(MlflowParams()) == {
        "uri": f"sqlite:///{tmp_path}/mlflow.db",
        "uri_from": "default",
        "experiment": "jepa-lab",
        "experiment_from": "default",
    }
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://environment")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "environment")
    assert _chosen(MlflowParams()) == {
        "uri": "http://environment",
        "uri_from": "MLFLOW_TRACKING_URI",
        "experiment": "environment",
        "experiment_from": "MLFLOW_EXPERIMENT_NAME",
    }
    assert _chosen(MlflowParams(), RECORDED) == {
        "uri": "http://recorded",
        "uri_from": "the run folder",
        "experiment": "recorded",
        "experiment_from": "the run folder",
    }
    assert _chosen(MlflowParams(uri="http://given", experiment="given"), RECORDED) == {
        "uri": "http://given",
        "uri_from": "tracking.uri",
        "experiment": "given",
        "experiment_from": "tracking.experiment",
    }


def test_each_of_store_and_experiment_is_chosen_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://environment")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "environment")
    chosen = _chosen(MlflowParams(experiment="given"))
    assert (chosen["uri"], chosen["experiment"]) == ("http://environment", "given")
    chosen = _chosen(MlflowParams(uri="http://given"), RECORDED)
    assert (chosen["uri"], chosen["experiment"]) == ("http://given", "recorded")


def test_an_empty_variable_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "")
    chosen = _chosen(MlflowParams())
    assert (chosen["uri_from"], chosen["experiment_from"]) == ("default", "default")


def test_a_relative_file_in_the_environment_is_found_again_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///sub/x.db")
    settings = MlflowTracker(MlflowParams()).settings()
    assert settings is not None
    assert settings.uri == f"sqlite:///{tmp_path}/sub/x.db"
    assert settings.artifact_location == (tmp_path / "sub/mlflow-artifacts").as_uri()


def test_a_recorded_artifact_folder_stays_with_its_store() -> None:
    kept = RecordedPlace(
        TrackerSettings("sqlite:////x/mlflow.db", "file:///artifacts", "e", None, 1.0), "the run folder"
    )
    stays, moves = MlflowTracker(MlflowParams(), kept), MlflowTracker(MlflowParams(uri="sqlite:////y/other.db"), kept)
    found = [each.settings() for each in (stays, moves)]
    assert [None if each is None else each.artifact_location for each in found] == [
        "file:///artifacts",
        "file:///y/mlflow-artifacts",
    ]


@pytest.mark.parametrize("command", ["check", "run", "compare", "ui"])
@pytest.mark.parametrize("uri", ["./mlruns", "http://ann:s3cret@host:99999", "ftp://ann:s3cret@host"])
def test_a_variable_that_names_no_store_is_refused_by_its_name_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str, uri: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    file = write_tiny(tmp_path)
    file.write_text(file.read_text().replace("tracking: none", "tracking: mlflow"))
    result = CliRunner().invoke(main, [command, str(file)] if command in ("check", "run") else [command])
    assert result.exit_code == 2, result.output
    assert "error: MLFLOW_TRACKING_URI: uri " in result.output
    assert "or unset MLFLOW_TRACKING_URI, or set tracking.uri" in result.output
    assert "s3cret" not in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["tiny.yaml"]


def test_a_wrong_variable_does_no_harm_where_it_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "./mlruns")
    assert _chosen(MlflowParams(uri="http://given"))["uri"] == "http://given"
    assert _chosen(MlflowParams(), RECORDED)["uri"] == "http://recorded"
    assert "http://given" in MlflowTracker(MlflowParams(uri="http://given")).describe()
    result = CliRunner().invoke(main, ["check", str(write_tiny(tmp_path))])  # tracking: none
    assert result.exit_code == 0, result.output


def test_an_experiment_name_that_is_too_long_names_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "x" * 501)
    with pytest.raises(ConfigError, match=r"MLFLOW_EXPERIMENT_NAME.* at most 500 .*got 501.*tracking\.experiment"):
        MlflowTracker(MlflowParams())


def test_a_new_trial_goes_where_its_sweep_is_recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a sweep is resumed from another folder, or in another environment."""
    sweep = SweepFolder.open_or_create(tmp_path, "sweep", "name: sweep\n", {})
    sweep.record.write_description(RunDescription({}, {}, tracker=RECORDED.settings))
    pipeline = load_tiny(tmp_path, "tracking=mlflow").pipeline
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://environment")
    new = RunFolder.create(sweep.trials, "trial", "0123456789", 0, "")
    settings = build_tracker(pipeline, new).settings()
    assert settings is not None
    assert (settings.uri, settings.uri_from) == ("http://recorded", "the sweep folder")
    assert (settings.experiment, settings.experiment_from) == ("recorded", "the sweep folder")


def test_a_run_that_was_not_mirrored_recorded_no_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://environment")
    folder = RunFolder.create(tmp_path, "run", "0123456789", 0, "")
    folder.write_description(RunDescription({}, {}))
    settings = build_tracker(load_tiny(tmp_path, "tracking=mlflow").pipeline, folder).settings()
    assert settings is not None
    assert settings.uri == "http://environment"


def test_the_result_says_which_store_was_used_and_why(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "run", "0123456789", 0, "")
    tracker = MlflowTracker(MlflowParams(uri="http://ann:s3cret@host"))
    folder.write_description(RunDescription({}, {}, tracker=tracker.settings()))
    folder.write_result("KILLED", {}, 0)
    result = folder.read_result()
    assert result is not None
    assert result["tracking"] == {
        "uri": "http://host",
        "uri_from": "tracking.uri",
        "experiment": "jepa-lab",
        "experiment_from": "default",
    }
    folder.write_description(RunDescription({}, {}))
    folder.write_result("KILLED", {}, 0)
    result = folder.read_result()
    assert result is not None
    assert result["tracking"] is None


def test_the_last_line_of_a_run_tells_where_its_store_came_from_and_how_to_open_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    here = f"sqlite:///{tmp_path}/mlflow.db"
    described = MlflowTracker(MlflowParams()).describe()
    assert f"MLflow experiment 'jepa-lab' (the default) in {here} (the default)" in described
    assert described.endswith("open it with `jepa-lab ui`")
    assert (
        MlflowTracker(MlflowParams(uri="sqlite:////x/y.db"))
        .describe()
        .endswith("`jepa-lab ui --uri sqlite:////x/y.db`")
    )
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ann:s3cret@environment")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    described = MlflowTracker(MlflowParams()).describe()
    assert described == (
        "MLflow experiment 'mine' (from MLFLOW_EXPERIMENT_NAME) at http://environment (from MLFLOW_TRACKING_URI)"
    )
    # `jepa-lab ui` alone would now go to the server
    assert f"--uri {here}" in MlflowTracker(MlflowParams(uri="sqlite:///mlflow.db")).describe()


def test_variables_by_which_mlflow_would_choose_another_place_are_said_to_be_ignored(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "7")
    described = MlflowTracker(MlflowParams(uri="http://host")).describe()
    assert "MLFLOW_RUN_ID is ignored" in described
    assert "MLFLOW_EXPERIMENT_ID is ignored: set MLFLOW_EXPERIMENT_NAME" in described
    assert "EXPERIMENT_ID" not in MlflowTracker(MlflowParams(uri="http://host", experiment="mine")).describe()


def test_the_configuration_and_its_digest_do_not_depend_on_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def described() -> tuple[str, dict[str, object]]:
        pipeline = load_pipeline(write_tiny(tmp_path), ["tracking=mlflow"]).pipeline
        return config_digest(pipeline), pipeline.model_dump(mode="json")

    before = described()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://environment")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "environment")
    assert described() == before


def test_the_tests_do_not_see_the_variables_of_whoever_runs_them() -> None:
    code = "import os, tests.conftest; print([name for name in os.environ if 'MLFLOW' in name or 'TRACKING' in name])"
    environment = {**os.environ, "MLFLOW_TRACKING_URI": "http://host", "JEPA_LAB_TRACKING_URI": "http://host"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=Path(__file__).parents[3], capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "[]"


def test_the_ui_opens_the_store_of_the_environment_unless_another_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ann:s3cret@environment")
    monkeypatch.setattr("jepa_lab.tracking.ui.runs_link", lambda server, shown, experiment: f"{shown}/#/{experiment}")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mine")
    said: list[str] = []
    serve_ui(None, Place(5000), say=said.append, show=said.append)
    assert said == [
        "http://environment (from MLFLOW_TRACKING_URI) is a tracking server; its runs are at http://environment/#/mine",
        "http://environment/#/mine",
    ]
    with pytest.raises(ConfigError, match=r"no MLflow database .*x\.db \(from --uri\)"):
        serve_ui(f"sqlite:///{tmp_path}/x.db", Place(5000))
