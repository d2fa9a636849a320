"""`jepa-lab compare` against a real MLflow store that the mirror has filled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click.testing
import pytest

from jepa_lab.cli import main
from jepa_lab.errors import ConfigError
from jepa_lab.sweeps.folder import SweepFolder
from jepa_lab.sweeps.objectives import direction_of
from jepa_lab.tracking import mlflow_reading
from jepa_lab.tracking.description import RunDescription, TrackerSettings
from jepa_lab.tracking.mirror import sync
from jepa_lab.tracking.mirror_cursor import mlflow_run_id
from jepa_lab.tracking.mlflow_mirror import Mirror
from jepa_lab.tracking.mlflow_reading import read_runs
from jepa_lab.tracking.mlflow_store import connect
from jepa_lab.tracking.mlflow_tracker import MlflowParams, MlflowTracker
from jepa_lab.tracking.run_folder import RunFolder
from tests.integration.with_mlflow import MLFLOW_WARNINGS, kept_environment

pytestmark = MLFLOW_WARNINGS

VALUES = {("block", 0): 0.50, ("block", 1): 0.60, ("random", 0): 0.70, ("random", 1): 0.90}


@dataclass(frozen=True)
class Filled:
    """A store with two groups of two seeds, a run that goes on and one that was killed, and the same as a sweep."""

    uri: str
    runs: dict[tuple[str, int], RunFolder]
    running: RunFolder
    killed: RunFolder
    sweep: SweepFolder


@pytest.fixture(scope="module", autouse=True)
def _environment() -> Iterator[None]:
    with kept_environment(NO_PROXY="127.0.0.1", OMP_NUM_THREADS="1", COLUMNS="250"):
        yield


def make_run(root: Path, store: TrackerSettings, masker: str, seed: int, value: float | None, **tags: str) -> RunFolder:
    made = RunFolder.create(root, "toy", f"{masker}0000", seed, "name: toy\n")
    params = {"name": "toy", "masker.name": masker, "seed": str(seed), "encoder.depth": "2"}
    given = {"config_digest": masker, **tags}
    made.write_description(
        RunDescription(params, given, None, store, started=1000.0 + seed + 10 * (masker == "random"))
    )
    if value is not None:
        metrics = {"probe/validation_accuracy": value, "probe/test_accuracy": value - 0.1, "rankme_end": 7.0}
        made.write_result("FINISHED", {**metrics, "random_encoder/validation_accuracy": 0.4}, 10)
    return made


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Filled:
    root = tmp_path_factory.mktemp("compare ö")
    store = MlflowTracker(MlflowParams(uri=f"sqlite:///{root}/mlflow.db")).settings()
    assert store is not None
    connect(store)
    runs = {
        (masker, seed): make_run(root / "runs", store, masker, seed, value) for (masker, seed), value in VALUES.items()
    }
    running, killed = (make_run(root / "runs", store, "block", seed, None) for seed in (2, 3))
    for folder in (*runs.values(), killed):
        assert sync(folder.path).complete
    Mirror(running).push(ended=False)
    elsewhere = MlflowTracker(MlflowParams(uri=store.uri, experiment="sweeps 'of' May")).settings()
    assert elsewhere is not None
    sweep = SweepFolder.open_or_create(root / "sweeps", "toy-01234567", "name: toy\n", {"name": "toy"})
    sweep.record.write_description(RunDescription({"plan.kind": "arms"}, {"role": "sweep"}, None, elsewhere))
    for (masker, seed), value in VALUES.items():
        is_baseline = str(masker == "random").lower()
        make_run(
            sweep.trials, elsewhere, masker, seed, value, arm=f"with {masker}", role="arm", is_baseline=is_baseline
        )
    sweep.record.write_result("FINISHED", {}, 4)
    assert sync(sweep.path).complete
    return Filled(store.uri, runs, running, killed, sweep)


def compare(*arguments: object) -> click.testing.Result:
    return click.testing.CliRunner().invoke(main, ["compare", *map(str, arguments)])


def compared(filled: Filled, *arguments: object) -> str:
    done = compare(*arguments, "--uri", filled.uri)
    assert done.exit_code == 0, done.output
    return done.output


def refused(filled: Filled, *arguments: object) -> str:
    done = compare(*arguments, "--uri", filled.uri)
    assert done.exit_code == 2, done.output
    return done.output


def table_rows(markdown: str) -> dict[str, list[str]]:
    lines = [line.strip("| ").split(" | ") for line in markdown.splitlines() if line.startswith("|")]
    return {cells[0]: cells[1:] for cells in lines[2:]}


def test_runs_and_sweeps_are_named_with_the_store_that_their_folders_record(
    filled: Filled, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    root = filled.sweep.path.parent.parent
    run = next(iter(filled.runs.values())).name
    monkeypatch.chdir(tmp_path)
    places = ("--runs", root / "runs", "--sweeps", root / "sweeps", "--format", "csv")
    for name in (run, filled.sweep.path.name):
        done = compare(name, *places)
        assert done.exit_code == 0, done.output
        assert compared(filled, name, "--format", "csv") == done.output


def test_without_names_the_default_experiment_is_compared_with_a_line_for_each_group(filled: Filled) -> None:
    output = compared(filled, "--format", "md")
    rows = table_rows(output)
    assert list(rows) == ["baseline: toy-block000", "control: random encoder", "toy-random00"]
    masker, n, mean, difference, p, test, *_ = rows["toy-random00"]
    assert (masker, n, p) == ("random", "2/4", "0.13")  # t = 0.25 / 0.05 with one degree of freedom
    assert mean.startswith("**80.0 [")
    assert difference.startswith("+25.0 [")
    assert test.startswith("70.0 [")
    assert f"Not used, because they are not over: {filled.running.name}." in output
    assert "1 trial killed before the end: toy-block000 (seed 3)." in output


@pytest.mark.parametrize("form", ["table", "md", "csv", "tex"])
def test_every_format_holds_the_same_groups(filled: Filled, form: str) -> None:
    output = compared(filled, "--format", form)
    assert "toy-random00" in output.replace("{-}", "-")
    assert {"table": "────", "md": "| ---", "csv": "arm,seed,metric,value", "tex": r"\toprule"}[form] in output


def test_runs_are_named_by_id_name_or_folder_and_each_counts_once(filled: Filled) -> None:
    block, random = filled.runs["block", 0], filled.runs["random", 0]
    given: list[Sequence[object]] = [
        (mlflow_run_id(block), mlflow_run_id(random)),
        (block.name, random.name),
        (block.path, random.path),
        (block.path, mlflow_run_id(block), random.path, random.path),
    ]
    expected = {(name, "2") for name in ("block", "random")}
    for names in given:
        frame = read_runs([str(name) for name in names], filled.uri).frame
        assert set(zip(frame["params.masker.name"], frame["params.encoder.depth"], strict=True)) == expected
        assert len(frame) == 2
    (trial,) = read_runs(["with block s0"], filled.uri).frame["tags.arm"]
    assert trial == "with block"


@pytest.mark.parametrize("kind", ["folder", "run id", "run name", "experiment"])
def test_a_sweep_stands_for_its_trials_and_brings_its_baseline(filled: Filled, kind: str) -> None:
    name = {
        "folder": filled.sweep.path,
        "run id": mlflow_run_id(filled.sweep.record),
        "run name": "toy-01234567",
        "experiment": "sweeps 'of' May",
    }[kind]
    rows = table_rows(compared(filled, name, "--format", "md"))
    assert list(rows) == ["baseline: with random", "control: random encoder", "with block"]
    assert rows["with block"][3].startswith("−25.0 [")


def test_folders_say_themselves_in_which_store_they_are(filled: Filled, tmp_path: Path) -> None:
    done = compare(filled.sweep.path, "--format", "csv")
    assert done.exit_code == 0, done.output
    unmirrored = RunFolder.create(tmp_path, "none", "0123456789", 0, "")
    unmirrored.write_description(RunDescription({}, {}))
    assert "tracking: none" in compare(unmirrored.path).output
    other = TrackerSettings("sqlite:////nowhere/mlflow.db", None, "e", None, 1.0)
    unmirrored.write_description(RunDescription({}, {}, None, other))
    done = compare(unmirrored.path, filled.sweep.path)
    assert done.exit_code == 2
    assert "recorded in several stores" in done.output
    unmirrored.write_description(RunDescription({}, {}, None, TrackerSettings(filled.uri, None, "e", None, 1.0)))
    assert f"`jepa-lab sync {unmirrored.path}` sends what it lacks" in compare(unmirrored.path).output


def test_by_a_param_and_against_another_baseline(filled: Filled) -> None:
    rows = table_rows(compared(filled, "--by", "masker.name", "--baseline", "random", "--format", "md"))
    assert list(rows) == ["baseline: random", "control: random encoder", "block"]
    assert "did you mean 'masker.name'" in refused(filled, "--by", "masker.nam")
    assert "there is no group 'rando'" in refused(filled, "--baseline", "rando")


def test_what_is_not_there_is_exit_code_2_with_the_nearest_name(filled: Filled, tmp_path: Path) -> None:
    assert "did you mean 'jepa-lab'?" in refused(filled, "jepa-lap")
    assert "did you mean 'toy-random00-s1'?" in refused(filled, "toy-rndom00-s1")
    assert "experiments: " in refused(filled, "x" * 32)
    assert "did you mean 'rankme_end'" in refused(filled, "--metric", "rankme_ende")
    assert "none of these runs has finished (1 RUNNING)" in refused(filled, filled.running.path)
    assert "is not a run folder" in refused(filled, tmp_path / "nowhere")
    assert "both kinds of quotes" in refused(filled, "a'b\"c")
    done = compare("--uri", f"sqlite:///{tmp_path}/none.db")
    assert (done.exit_code, (tmp_path / "none.db").exists()) == (2, False)
    assert "there is no MLflow database" in done.output


def test_the_test_split_and_controls_order_nothing(filled: Filled) -> None:
    assert "is of the test split, which chooses nothing" in refused(filled, "--metric", "probe/test_accuracy")
    assert "that of a control" in refused(filled, "--metric", "random_encoder/validation_accuracy")
    with pytest.raises(ConfigError):
        direction_of("probe/knn_test_accuracy")
    assert [direction_of(name) for name in ("train/loss", "rankme_end", "training_seconds", "mine")] == [
        "minimize", "maximize", "minimize", "maximize",
    ]  # fmt: skip


def test_a_server_that_is_away_is_told_without_its_password() -> None:
    done = compare("--uri", "http://ann:secret@127.0.0.1:9")
    assert done.exit_code == 2, done.output
    assert "cannot be read" in done.output
    assert "secret" not in done.output


def test_many_runs_are_read_in_pages_without_a_request_for_each(
    filled: Filled, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(filled.uri)
    experiment = client.create_experiment("many")
    for number in range(7):
        made = client.create_run(experiment, tags={"config_digest": str(number % 2)})
        client.log_param(made.info.run_id, "seed", number // 2)
        client.log_metric(made.info.run_id, "probe/validation_accuracy", number / 10)
        client.set_terminated(made.info.run_id)
    asked: list[str] = []
    real = MlflowClient.search_runs

    def search_runs(*given: Any, **named: Any) -> Any:
        asked.append(named["page_token"] or "first")
        return real(*given, **named)

    monkeypatch.setattr(mlflow_reading, "_PAGE", 3)
    monkeypatch.setattr(MlflowClient, "search_runs", search_runs)
    monkeypatch.setattr(MlflowClient, "get_run", None)
    frame = read_runs(["many"], filled.uri).frame
    assert len(asked) == 3
    assert sorted(frame["metrics.probe/validation_accuracy"]) == [number / 10 for number in range(7)]


def test_a_deleted_run_is_not_compared_and_a_twin_counts_once(filled: Filled) -> None:
    from mlflow import MlflowClient

    client = MlflowClient(filled.uri)
    experiment = client.create_experiment("twins")
    for value in (0.1, None, 0.3):
        made = client.create_run(experiment, tags={"jepa_lab.run_uid": "same" if value != 0.3 else "other"})
        if value is not None:
            client.log_metric(made.info.run_id, "m", value)
    client.delete_run(made.info.run_id)
    frame = read_runs(["twins"], filled.uri).frame
    assert frame["metrics.m"].tolist() == [0.1]
