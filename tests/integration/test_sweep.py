"""Whole sweeps: every trial once, whatever is killed, and the same numbers as runs of their own."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import click.testing
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors import safe_open
from scipy import stats

from jepa_lab.cli import main
from jepa_lab.composition.start import start_run
from jepa_lab.config.loading import load_pipeline
from jepa_lab.config.shipped import shipped_files
from jepa_lab.errors import RunFolderError, RunInterrupted
from jepa_lab.interruption import StopRequested
from jepa_lab.sweeps.choices import Choices
from jepa_lab.sweeps.engine import NO_ENGINE_SETTINGS, EngineChoice, choose_engine
from jepa_lab.sweeps.folder import SweepFolder
from jepa_lab.sweeps.plan import Plan, load_plan
from jepa_lab.sweeps.results import report_input
from jepa_lab.sweeps.studies import Studies, open_studies
from jepa_lab.sweeps.study import open_storage
from jepa_lab.sweeps.sweep import Sweep, SweepOutcome, SweepSettings, run_sweep
from jepa_lab.sweeps.workshop import Workshop
from jepa_lab.tracking.base import TRACKERS, MirrorState, Tracker
from jepa_lab.tracking.metrics import read_metrics
from jepa_lab.tracking.run_folder import RunFolder
from jepa_lab.training.checkpoint import CheckpointStore
from tests.integration.pipelines import write_tiny
from tests.integration.unpainted import COMMAND
from tests.unit.data.files import write_image
from tests.unit.sweeps.sharing.fake_mps import FakeMps

ABLATION = """\
name: loss_test
base: tiny.yaml
baseline: smooth
arms:
  smooth: {}
  l2: {loss: l2}
seeds: [0, 1]
"""
ABLATIONS = Path(__file__).parents[2] / "ablations"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}
TIMES = ("training_seconds", "images_per_second")


def write_ablation(folder: Path, text: str = ABLATION) -> Path:
    write_tiny(folder)
    file = folder / "ablation.yaml"
    file.write_text(text)
    return file


def settings(root: Path, slots: int = 2, storage: str | None = None, on_gpu: bool = False) -> SweepSettings:
    return SweepSettings(root, storage, choose_engine(NO_ENGINE_SETTINGS, EngineChoice(slots=slots), on_gpu), ["test"])


def sweep(file: Path, root: Path, slots: int = 2) -> tuple[Plan, SweepOutcome]:
    plan = load_plan(file)
    return plan, run_sweep(plan, file.read_text(), settings(root, slots, on_gpu=plan.on_gpu))


def numbers(trials: pd.DataFrame) -> pd.DataFrame:
    """What must not depend on how often a sweep was killed."""
    measured = trials.drop(columns=["run_folder", "number", *TIMES]).sort_values(["arm", "seed"])
    return measured.reset_index(drop=True)


def trials_in(folder: Path) -> pd.DataFrame:
    """The trials of a sweep folder."""
    opened = SweepFolder.open(folder)
    return report_input(opened, open_studies(opened, None)).trials


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, SweepOutcome, Path]:
    folder = tmp_path_factory.mktemp("finished sweep ö")
    file = write_ablation(folder)
    return *sweep(file, folder / "sweeps"), file


def test_every_arm_is_trained_with_every_seed_once_and_reported(finished: tuple[Plan, SweepOutcome, Path]) -> None:
    _, outcome, _ = finished
    trials = outcome.report.trials
    assert sorted(zip(trials["arm"], trials["seed"], trials["status"], strict=True)) == [
        (arm, seed, "FINISHED") for arm in ("l2", "smooth") for seed in (0, 1)
    ]
    assert len(list((outcome.folder.trials).iterdir())) == 4
    assert trials["probe/validation_accuracy"].between(0, 1).all()
    for name in ("table.md", "table.tex", "table.csv", "trials.csv", "report.html"):
        assert (outcome.folder.report / name).stat().st_size > 0
    description = RunFolder(Path(trials["run_folder"][0])).read_description()
    assert description.tags["arm"] == trials["arm"][0]
    assert "loss" in description.params
    noted = outcome.report.probe_notes
    written = [json.loads((Path(folder) / "result.json").read_text())["probe"] for folder in trials["run_folder"]]
    expected = [len(each["notes"]) for rows in written for probes in rows.values() for each in probes.values()]
    assert len(noted) == sum(expected)
    assert set(noted["run_folder"]) <= set(trials["run_folder"])


def right_images(run: Path, row: str) -> np.ndarray:
    """Which validation images a row of a run classified correctly, from its file alone."""
    with safe_open(run / "predictions.safetensors", "numpy") as file:
        return file.get_tensor(f"validation/{row}/logistic") == file.get_tensor("validation/labels")


def test_the_table_can_be_computed_from_the_files_of_the_trials_with_scipy_alone(
    finished: tuple[Plan, SweepOutcome, Path],
) -> None:
    plan, outcome, _ = finished
    trials = outcome.report.trials.set_index(["arm", "seed"])
    folders = {key: Path(folder) for key, folder in trials["run_folder"].items()}
    for key, folder in folders.items():
        assert right_images(folder, "trained").mean() == pytest.approx(trials.loc[key, "probe/validation_accuracy"])
    # The control's difference is not the same with both seeds, as that of an arm after three epochs may be.
    baseline = [folders[plan.baseline, seed] for seed in (0, 1)]
    found = np.array([right_images(run, "raw_pixels") * 1.0 - right_images(run, "trained") for run in baseline])
    line = pd.read_csv(outcome.folder.report / "table.csv").set_index("arm").loc["raw pixels"]
    seeds, images, number = found.mean(axis=1), found.mean(axis=0), found.shape[1]
    test = stats.ttest_1samp(seeds, 0)
    assert line["difference"] == pytest.approx(found.mean())
    assert line["p_seeds"] == pytest.approx(test.pvalue)
    of_seeds, of_images = number * seeds.var(ddof=1), 2 * images.var(ddof=1)
    rest = ((found - seeds[:, None] - images + found.mean()) ** 2).sum() / (number - 1)
    half = (test.confidence_interval().high - test.confidence_interval().low) / 2
    total = of_seeds + of_images - rest
    if total > 0:
        degrees = max(1.0, total**2 / (of_seeds**2 + (of_images**2 + rest**2) / (number - 1)))
        half = max(half, stats.t.ppf(0.975, degrees) * math.sqrt(total / found.size))
    assert line["seeds_images_high"] - line["seeds_images_low"] == pytest.approx(2 * half, rel=0.05)


def test_a_trial_is_bitwise_the_run_of_its_pipeline_whatever_its_worker_ran_before(
    finished: tuple[Plan, SweepOutcome, Path], tmp_path: Path
) -> None:
    plan, outcome, _ = finished
    before = torch.get_num_threads()
    for _, trial in outcome.report.trials.iterrows():
        alone = start_run(plan.pipeline(plan.arm(trial["arm"]), trial["seed"]), tmp_path / "runs", []).folder
        folders = (alone, RunFolder(Path(trial["run_folder"])))
        first, second = (CheckpointStore(folder.checkpoints).load().model for folder in folders)
        assert all(torch.equal(first[name], second[name]) for name in first)
    torch.set_num_threads(before)


def test_the_same_command_runs_nothing_again(finished: tuple[Plan, SweepOutcome, Path]) -> None:
    _, outcome, file = finished
    before = {path: path.stat().st_mtime_ns for path in outcome.folder.trials.rglob("*")}
    _, again = sweep(file, outcome.folder.path.parent)
    assert again.folder.path == outcome.folder.path
    assert {path: path.stat().st_mtime_ns for path in outcome.folder.trials.rglob("*")} == before
    pd.testing.assert_frame_equal(numbers(again.report.trials), numbers(outcome.report.trials))


def test_a_second_process_on_the_same_sweep_is_refused(finished: tuple[Plan, SweepOutcome, Path]) -> None:
    plan, outcome, file = finished
    with outcome.folder.lock() as lock:
        assert lock.try_acquire()
        with pytest.raises(RunFolderError, match="another process is at work on the sweep"):
            run_sweep(plan, file.read_text(), settings(outcome.folder.path.parent))


@pytest.mark.parametrize("kept", ["all of it, by an early jepa-lab", "its digest and folder", "its digest alone"])
def test_a_storage_that_holds_another_plan_is_refused_and_the_difference_named(tmp_path: Path, kept: str) -> None:
    storage = f"sqlite:///{tmp_path / 'optuna.db'}"
    text = ABLATION.replace("l2: {loss: l2}", "rare: {training.log_every_steps: 5}")
    file = write_ablation(tmp_path, text)
    held = load_plan(file)
    first = Studies(open_storage(tmp_path / "journal.log", storage), held.to_record()).first
    if kept == "all of it, by an early jepa-lab":
        first._study.set_user_attr("plan", held.to_record())
    else:
        first.describe({"plan": held.digest, "sweep_folder": str(tmp_path / "old" / "loss_test-0123")})
    if kept == "its digest and folder":
        SweepFolder.open_or_create(tmp_path / "old", "loss_test-0123", text, held.to_record())
    other = load_plan(write_ablation(tmp_path))
    rest = "of the sweep in .*old.*another --storage" if kept == "its digest alone" else "'l2'"
    with pytest.raises(RunFolderError, match=rf"the storage holds another plan under the name 'loss_test'.*{rest}"):
        run_sweep(other, file.read_text(), settings(tmp_path / "sweeps", storage=storage))


def test_a_sweep_of_an_early_jepa_lab_is_resumed_and_its_dump_of_the_plan_becomes_a_digest(
    finished: tuple[Plan, SweepOutcome, Path],
) -> None:
    plan, outcome, file = finished
    study = Studies(open_storage(outcome.folder.journal, None), plan.to_record()).first
    study._study.set_user_attr("plan", plan.to_record())
    _, again = sweep(file, outcome.folder.path.parent)
    pd.testing.assert_frame_equal(numbers(again.report.trials), numbers(outcome.report.trials))
    assert Studies(open_storage(outcome.folder.journal, None), plan.to_record()).first.recorded_plan() == plan.digest


def test_a_report_needs_the_storage_of_its_sweep_and_one_sweep_has_one_folder(tmp_path: Path) -> None:
    file = write_ablation(tmp_path, ABLATION.replace("[0, 1]", "[0]"))
    plan, storage = load_plan(file, ["training.epochs=1"]), f"sqlite:///{tmp_path / 'optuna.db'}"
    outcome = run_sweep(plan, file.read_text(), settings(tmp_path / "sweeps", storage=storage))
    page = (outcome.folder.report / "table.md").read_text()
    invoke = functools.partial(click.testing.CliRunner().invoke, main)
    without = invoke(["report", str(outcome.folder.path)])
    assert without.exit_code != 0
    assert "give the --storage that its `jepa-lab sweep` was given" in without.output
    assert not outcome.folder.journal.exists()
    assert invoke(["report", str(outcome.folder.path), "--storage", storage]).exit_code == 0
    assert (outcome.folder.report / "table.md").read_text() == page
    with pytest.raises(RunFolderError, match=r"already holds this sweep, with its trials in .*sweeps.*--sweeps"):
        run_sweep(plan, file.read_text(), settings(tmp_path / "elsewhere", storage=storage))
    shutil.rmtree(tmp_path / "elsewhere")
    (tmp_path / "sweeps").rename(tmp_path / "moved")
    again = run_sweep(plan, file.read_text(), settings(tmp_path / "moved", storage=storage))
    assert (again.report.trials["status"] == "FINISHED").all()
    shutil.rmtree(tmp_path / "moved")
    with pytest.raises(RunFolderError, match=r"2 of the finished trials no longer have a run folder"):
        run_sweep(plan, file.read_text(), settings(tmp_path / "moved", storage=storage))


def test_a_trial_that_fails_is_tried_again_then_counted_and_shown(tmp_path: Path) -> None:
    text = ABLATION.replace("l2: {loss: l2}", "hot: {optimizer.learning_rate: 1.0e+30, loss: l2}")
    _, outcome = sweep(write_ablation(tmp_path, text.replace("[0, 1]", "[0]")), tmp_path / "sweeps", slots=1)
    trials = outcome.report.trials.set_index("arm")
    assert trials["status"].to_dict() == {"smooth": "FINISHED", "hot": "FAILED"}
    assert "not finite" in trials.loc["hot", "error"]
    assert "not finite" in (outcome.folder.report / "report.html").read_text()


@pytest.mark.parametrize("kills", [1, pytest.param(10, marks=pytest.mark.slow)])
def test_kills_of_parent_and_workers_change_nothing_but_times(tmp_path: Path, kills: int) -> None:
    seeds = [0] if kills == 1 else [0, 1, 2]
    file = write_ablation(tmp_path, ABLATION.replace("[0, 1]", str(seeds)))
    overrides = [f"training.epochs={20 * kills}", "probe.every_epochs=10"]
    chance = random.Random(kills)
    command = [*COMMAND, "sweep", str(file), *overrides, "--slots", "2"]
    killed = [*command, "--sweeps", str(tmp_path / "killed")]
    for _ in range(kills):
        process = subprocess.Popen(killed, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        deadline = time.monotonic() + chance.uniform(6, 14)
        while time.monotonic() < deadline and process.poll() is None:
            time.sleep(chance.uniform(0.5, 3))
            _kill_a_worker(process.pid, chance)
        process.kill()
        process.communicate()
    done = subprocess.run(killed, env=ENVIRONMENT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    whole = subprocess.run(
        [*command, "--sweeps", str(tmp_path / "whole")], env=ENVIRONMENT, capture_output=True, check=False
    )
    assert whole.returncode == 0
    (first,), (second,) = (tmp_path / "killed").iterdir(), (tmp_path / "whole").iterdir()
    assert len(trials_in(first)) == 2 * len(seeds)
    pd.testing.assert_frame_equal(numbers(trials_in(first)), numbers(trials_in(second)))


def _kill_a_worker(parent: int, chance: random.Random) -> None:
    """SIGKILL to one child of a process, if it has one."""
    children = Path(f"/proc/{parent}/task/{parent}/children")
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        found = children.read_text().split()
        if found and chance.random() < 0.5:
            os.kill(int(chance.choice(found)), signal.SIGKILL)


def test_ctrl_c_saves_the_trials_and_the_same_command_goes_on(tmp_path: Path) -> None:
    file = write_ablation(tmp_path, ABLATION.replace("[0, 1]", "[0]"))
    command = [*COMMAND, "sweep", str(file), "training.epochs=100", "probe.every_epochs=100"]
    command += ["training.checkpoint_every_steps=100000", "--sweeps", str(tmp_path / "sweeps"), "--slots", "1"]
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def training() -> int:
        files = (tmp_path / "sweeps").glob("*/trials/*/metrics.jsonl")
        return sum(any(row.step > 0 for row in read_metrics(file)) for file in files)

    while training() < 1:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 130, said
    assert "run the same command again to resume" in said
    results = [json.loads(path.read_text()) for path in (tmp_path / "sweeps").glob("*/trials/*/result.json")]
    assert [result["status"] for result in results] == ["KILLED"]
    assert all(result["last_step"] > 0 for result in results)
    process = subprocess.Popen(command, env=ENVIRONMENT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert process.wait(300) == 0
    (folder,) = (tmp_path / "sweeps").iterdir()
    assert trials_in(folder)["status"].tolist() == ["FINISHED", "FINISHED"]
    assert len(list((folder / "trials").iterdir())) == 2


def test_a_second_ctrl_c_waits_for_no_tracker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    def perform(sweep: Sweep) -> bool:
        raise StopRequested(signal.SIGINT)

    monkeypatch.setattr(Sweep, "perform", perform)

    def close(tracker: Tracker, seconds: float, *say: object) -> MirrorState:
        waits.append(seconds)
        return MirrorState()

    monkeypatch.setattr(TRACKERS.get("none").component, "close", close)
    file = write_ablation(tmp_path)
    with pytest.raises(RunInterrupted, match="run the same command again to resume"):
        sweep(file, tmp_path / "sweeps")
    assert waits == [0.0]


def test_how_trials_share_a_gpu_is_said_once_and_its_daemon_ends_with_the_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake = FakeMps(tmp_path, monkeypatch)
    monkeypatch.setattr("jepa_lab.sweeps.executors.local.visible_gpus", lambda: ["0"])
    monkeypatch.setattr(Workshop, "perform_table", lambda *arguments: True)
    sweep(write_ablation(tmp_path, f"{ABLATION}overrides: {{training.device: auto}}\n"), tmp_path / "sweeps")
    assert capsys.readouterr().out.count("trials that share a GPU run on it at once, by NVIDIA MPS") == 1
    assert fake.said("start", "quit") == ["start 0", "quit"]


@pytest.mark.slow
def test_forty_eight_trials_on_eight_slots_run_each_exactly_once_and_lose_no_metric(tmp_path: Path) -> None:
    rates = ", ".join(f"{1e-4 * (number + 1):.1e}" for number in range(12))
    text = f"base: tiny.yaml\ngrid: {{optimizer.learning_rate: [{rates}]}}\n"
    text += "baseline: {optimizer.learning_rate: 1.0e-4}\nseeds: [0, 1, 2, 3]\n"
    file = write_ablation(tmp_path, text)
    plan = load_plan(file)
    outcome = run_sweep(plan, file.read_text(), settings(tmp_path / "sweeps", slots=8))
    trials = outcome.report.trials
    assert (trials["status"] == "FINISHED").all()
    assert len(set(zip(trials["arm"], trials["seed"], strict=True))) == len(trials) == 48
    assert len(list(outcome.folder.trials.iterdir())) == 48
    for folder in outcome.folder.trials.iterdir():
        steps = [row.step for row in read_metrics(folder / "metrics.jsonl") if "train/loss" in row.metrics]
        assert steps == [2, 4, 5, 6, 8, 10, 12, 14, 15]


@pytest.mark.slow
@pytest.mark.parametrize("file", sorted(ABLATIONS.glob("*.yaml")), ids=lambda file: file.stem)
def test_every_shipped_ablation_runs_with_the_smoke_preset(tmp_path: Path, file: Path) -> None:
    plan = load_plan(file, ["tracking=none"], "smoke")
    outcome = run_sweep(plan, file.read_text(), settings(tmp_path))
    assert (outcome.report.trials["status"] == "FINISHED").all(), outcome.report.trials["error"].tolist()
    assert (outcome.folder.report / "report.html").exists()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["learning_rate_search", "mask_geometry"])
def test_a_shipped_ablation_runs_on_the_recipe_of_cifar10(tmp_path: Path, name: str) -> None:
    base = shipped_files("pipeline")["cifar10"]
    choices = Choices(base=base, seeds=(0,))
    plan = load_plan(ABLATIONS / f"{name}.yaml", ["tracking=none"], "smoke", choices)
    outcome = run_sweep(plan, "", settings(tmp_path))
    trials = outcome.report.trials
    assert (trials["status"] == "FINISHED").all(), trials["error"].tolist()
    losses = {load_pipeline(RunFolder(Path(each)).config).pipeline.loss.name for each in trials["run_folder"]}
    assert losses == {"l2"}  # that of cifar10.yaml


def test_images_without_labels_are_refused_before_a_trial_trains_where_a_probe_decides(tmp_path: Path) -> None:
    for number in range(40):
        write_image(tmp_path / "flat" / f"{number}.png", np.full((8, 8, 3), number))
    given = f"data.dataset: image_folder, data.root: {tmp_path}/flat, training.batch_size: 10"
    text = f"{ABLATION}overrides: {{{given}}}\n"
    _, outcome = sweep(write_ablation(tmp_path, text), tmp_path / "sweeps", slots=1)
    trials = outcome.report.trials
    assert set(trials["status"]) == {"FAILED"}
    assert all("the images have no labels, and the sweep is decided by a probe" in error for error in trials["error"])
    assert not list(outcome.folder.trials.glob("*"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--slots", "2", "--slots-per-gpu", "2"], "--slots and --slots-per-gpu both say"),
        (["--slots-per-gpu", "2"], "--slots-per-gpu 2 needs a GPU, and training.device=cpu uses none; use --slots"),
        (
            ["--slots-per-gpu", "2", "training.device=auto"],
            "--slots-per-gpu 2 needs a GPU, and this machine shows none; use --slots",
        ),
    ],
)
def test_slots_that_cannot_be_meant_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], message: str
) -> None:
    monkeypatch.setattr("jepa_lab.sweeps.executors.local.visible_gpus", list)
    file = write_ablation(tmp_path)
    done = click.testing.CliRunner().invoke(main, ["sweep", str(file), "--sweeps", str(tmp_path / "sweeps"), *options])
    assert done.exit_code == 2
    assert message in done.output
    assert not (tmp_path / "sweeps").exists()
