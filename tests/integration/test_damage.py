"""Damaged run folders and full disks: the last good state is used and said, or the run is refused; nothing else."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from matplotlib.figure import Figure
from safetensors import SafetensorError

from jepa_lab.composition.start import start_run
from jepa_lab.errors import JepaLabError, RunFolderError, RunStopped
from jepa_lab.figures.png import write_png
from jepa_lab.reprobe import probe_again
from jepa_lab.resume import find_unfinished, is_finished, resume_run
from jepa_lab.tracking.metrics import read_metrics
from jepa_lab.tracking.none import NoTracker
from jepa_lab.tracking.run_folder import RunFolder
from jepa_lab.training import tensor_file
from jepa_lab.training.checkpoint import CheckpointStore
from tests.integration.pipelines import load_tiny
from tests.integration.runs import TOTAL_STEPS, assert_same_run, killed_run

PAGE = 4096
NEWEST = "checkpoints/step-00000012"
FILES = (
    "config.yaml",
    "run.json",
    "environment.json",
    "metrics.jsonl",
    "result.json",
    f"{NEWEST}/state.json",
    f"{NEWEST}/model.safetensors",
    f"{NEWEST}/optimizer.safetensors",
    f"{NEWEST}/state.safetensors",
)


def _flip(content: bytes) -> bytes:
    """One bit of a byte in the middle."""
    changed = bytearray(content)
    changed[len(changed) // 2] ^= 0x04
    return bytes(changed)


def _truncate(content: bytes) -> bytes:
    return content[: len(content) // 2]


def _zero(content: bytes) -> bytes:
    return bytes(len(content))


def _empty(content: bytes) -> bytes:
    return b""


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("whole")
    return start_run(load_tiny(folder), folder / "runs", ["whole"]).folder


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunFolder]:
    """Killed behind step 13: checkpoints of steps 10 and 12 (and the best)."""
    with pytest.MonkeyPatch.context() as patch:
        yield killed_run(tmp_path_factory.mktemp("stopped"), patch, 13)


def _copy(folder: RunFolder, to: Path) -> RunFolder:
    shutil.copytree(folder.path, to)
    return RunFolder.open(to)


@pytest.mark.parametrize("damage", [_flip, _truncate, _zero, _empty], ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("file", FILES)
def test_a_damaged_file_is_named_and_the_run_ends_as_if_it_were_whole_or_is_refused(
    whole: RunFolder,
    stopped: RunFolder,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    file: str,
    damage: Callable[[bytes], bytes],
) -> None:
    folder = _copy(stopped, tmp_path / "copy")
    damaged = folder.path / file
    damaged.write_bytes(damage(damaged.read_bytes()))
    error = None
    try:
        resume_run(RunFolder.open(folder.path), None, [])
    except JepaLabError as caught:
        error = caught
    said = capsys.readouterr().out if error is None else str(error)
    assert damaged.name in said
    if error is None:
        assert_same_run(folder, whole)
    # Without them it is not known what was run; without any row of metrics the record would have a gap.
    irreplaceable = file in ("config.yaml", "run.json") or (file == "metrics.jsonl" and damage in (_zero, _empty))
    assert (error is not None) == irreplaceable
    assert error is None or error.exit_code == 2


def test_a_damaged_checkpoint_is_passed_over_and_both_are_named(
    whole: RunFolder, stopped: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = _copy(stopped, tmp_path / "copy")
    weights = folder.path / NEWEST / "model.safetensors"
    weights.write_bytes(_flip(weights.read_bytes()))
    resume_run(folder, None, [])
    said = capsys.readouterr().out
    assert re.search(r"step-00000012/model.safetensors is damaged.*Resuming from the checkpoint of step 10", said)
    assert "Resuming from the checkpoint of step 10" in folder.log.read_text()
    assert_same_run(folder, whole)


def test_checkpoints_of_another_seed_are_refused(
    stopped: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = _copy(stopped, tmp_path / "copy")
    other = killed_run(tmp_path, monkeypatch, 13, "seed=1")
    shutil.rmtree(folder.checkpoints)
    shutil.copytree(other.checkpoints, folder.checkpoints)
    shutil.copy(other.metrics, folder.metrics)
    with pytest.raises(RunFolderError, match=r"no checkpoint .* can be used: .*that of another seed \(1\)"):
        resume_run(folder, None, [])


@pytest.mark.parametrize("file", ["run.json", NEWEST])
def test_a_file_of_another_run_of_the_same_configuration_is_not_taken_for_its_own(
    whole: RunFolder, stopped: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str
) -> None:
    folder = _copy(stopped, tmp_path / "copy")
    (folder.path / file).rename(tmp_path / "own")
    copy = shutil.copy if file == "run.json" else shutil.copytree
    with pytest.MonkeyPatch.context() as patch:
        other = killed_run(tmp_path, patch, 13)
    copy(other.path / file, folder.path / file)
    if file == "run.json":  # then every checkpoint is that of another run
        with pytest.raises(RunFolderError, match=r"step 12 is that of another run than run\.json"):
            resume_run(folder, None, [])
        return
    resume_run(folder, None, [])
    assert "step 12 is that of another run than run.json. Resuming from the checkpoint of step 10" in (
        capsys.readouterr().out
    )
    assert_same_run(folder, whole)


def test_the_result_of_another_run_does_not_make_a_run_finished(
    whole: RunFolder, stopped: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = _copy(stopped, tmp_path / "copy")
    shutil.copy(whole.result, folder.result)
    assert not is_finished(folder)
    resume_run(folder, None, [])
    assert "result.json is that of another run" in capsys.readouterr().out
    assert_same_run(folder, whole)


def test_a_checkpoint_folder_that_was_renamed_is_passed_over(
    whole: RunFolder, stopped: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = _copy(stopped, tmp_path / "copy")
    store = CheckpointStore(folder.checkpoints)
    store.path(12).rename(store.path(14))
    resume_run(folder, None, [])
    assert "holds the checkpoint of step 12: it was renamed" in capsys.readouterr().out
    assert_same_run(folder, whole)


@pytest.mark.parametrize("part", ["model", "optimizer", "state"])
def test_a_whole_checkpoint_with_other_tensors_is_refused(stopped: RunFolder, tmp_path: Path, part: str) -> None:
    folder = _copy(stopped, tmp_path / "copy")
    store = CheckpointStore(folder.checkpoints)
    checkpoint = store.load()
    kept = {name: tensor for name, tensor in getattr(checkpoint, part).items() if "mask" not in name}
    store.save(replace(checkpoint, **{part: kept}))
    with pytest.raises(RunFolderError, match="does not fit the run"):
        resume_run(folder, None, [])


def test_damage_of_a_finished_run_changes_nothing(whole: RunFolder, tmp_path: Path) -> None:
    folder = _copy(whole, tmp_path / "copy")
    weights = CheckpointStore(folder.checkpoints).path(TOTAL_STEPS) / "model.safetensors"
    weights.write_bytes(b"x")
    resume_run(folder, None, [])
    assert weights.exists()
    with pytest.raises(RunFolderError, match="damaged"):
        probe_again(folder, [], None)


def test_an_edited_config_without_run_json_is_refused(stopped: RunFolder, tmp_path: Path) -> None:
    folder = _copy(stopped, tmp_path / stopped.name)
    shutil.rmtree(folder.checkpoints)
    folder.checkpoints.mkdir()
    for file in (folder.description, folder.metrics, folder.result):
        file.unlink()
    folder.config.write_text(re.sub(r"^seed: 0$", "seed: 1", folder.config.read_text(), flags=re.MULTILINE))
    with pytest.raises(RunFolderError, match=r"its name is not that of config\.yaml"):
        resume_run(folder, None, [])


def test_a_run_folder_whose_path_is_not_utf_8_goes_on(whole: RunFolder, stopped: RunFolder, tmp_path: Path) -> None:
    folder = _copy(stopped, Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff")))
    resume_run(folder, None, [])
    assert_same_run(folder, whole)


@pytest.mark.parametrize(
    ("number", "remedy"), [(errno.EFBIG, "free space"), (errno.EIO, "look after"), (errno.EMFILE, "ulimit -n")]
)
def test_what_the_system_refuses_stops_the_run_with_3_and_a_remedy(
    whole: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, remedy: str
) -> None:
    save, calls = tensor_file.save_file, []

    def fail(*arguments: object) -> None:
        calls.append(1)
        if len(calls) == 5:
            raise SafetensorError(f"I/O error: something (os error {number})")
        save(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(tensor_file, "save_file", fail)
        with pytest.raises(RunStopped, match=remedy) as caught:
            start_run(load_tiny(tmp_path), tmp_path / "runs", [])
    assert caught.value.exit_code == 3
    (path,) = (tmp_path / "runs").iterdir()
    resume_run(RunFolder.open(path), None, [])
    assert_same_run(RunFolder.open(path), whole)


def test_a_figure_on_a_failing_disk_stops_the_run_with_a_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr("jepa_lab.figures.png.os.replace", fail)
        with pytest.raises(RunStopped, match=r"confusion\.png: Input/output error; look after"):
            write_png(Figure(), tmp_path / "confusion.png")


def test_a_run_of_a_newer_format_that_was_found_by_its_name_is_refused(stopped: RunFolder, tmp_path: Path) -> None:
    folder = _copy(stopped, tmp_path / stopped.name)
    folder.config.write_text(folder.config.read_text().replace("format version 1", "format version 2", 1))
    found = find_unfinished(tmp_path, load_tiny(tmp_path).pipeline)
    assert found is not None
    with pytest.raises(RunFolderError, match="has format version 2, this jepa-lab reads 1"):
        resume_run(found, None, [])


def test_a_tracker_never_sees_the_rows_that_are_cut_back(
    stopped: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = _copy(stopped, tmp_path / "copy")
    with open(folder.metrics, "ab") as file:
        file.write(b"garbage\n")
    seen: list[int] = []
    monkeypatch.setattr(
        NoTracker, "start", lambda self, run: seen.extend(row.step for row in read_metrics(run.metrics))
    )
    resume_run(folder, None, [])
    assert seen[-1] == 12


def test_metrics_that_lost_rows_before_every_checkpoint_are_refused_and_nothing_is_changed(
    stopped: RunFolder, tmp_path: Path
) -> None:
    folder = _copy(stopped, tmp_path / "copy")
    folder.metrics.write_bytes(_flip(folder.metrics.read_bytes()[:300]))
    before = sorted((path, path.stat().st_size) for path in folder.path.rglob("*") if path.name != "run.lock")
    with pytest.raises(RunFolderError, match=r"no checkpoint .* can be used.*metrics\.jsonl"):
        resume_run(folder, None, [])
    after = sorted((path, path.stat().st_size) for path in folder.path.rglob("*") if path.name != "run.lock")
    assert after == before


def test_a_run_whose_checkpoints_are_gone_does_not_silently_begin_again(stopped: RunFolder, tmp_path: Path) -> None:
    folder = _copy(stopped, tmp_path / "copy")
    for step in CheckpointStore(folder.checkpoints).steps():
        shutil.rmtree(CheckpointStore(folder.checkpoints).path(step))
    with pytest.raises(RunFolderError, match="holds no checkpoint, but"):
        resume_run(folder, None, [])


@pytest.mark.parametrize("also_missing", [[], ["run.json", "environment.json"]])
def test_a_run_that_was_killed_before_its_first_checkpoint_begins_at_step_0(
    whole: RunFolder, stopped: RunFolder, tmp_path: Path, also_missing: list[str]
) -> None:
    folder = _copy(stopped, tmp_path / stopped.name)
    shutil.rmtree(folder.checkpoints)
    folder.checkpoints.mkdir()
    rows = folder.metrics.read_bytes().splitlines(keepends=True)
    folder.metrics.write_bytes(rows[0] + rows[1][:20])
    for name in ["result.json", *also_missing]:
        (folder.path / name).unlink()
    resume_run(folder, None, [])
    assert_same_run(folder, whole)
    assert folder.environment.exists()


def test_a_run_folder_that_was_moved_goes_on_from_another_working_directory(
    whole: RunFolder, stopped: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = _copy(stopped, tmp_path / "moved to ö")
    monkeypatch.chdir(tmp_path)
    resume_run(RunFolder.open(Path("moved to ö")), None, [])
    assert_same_run(folder, whole)


def test_the_number_of_threads_is_that_of_the_checkpoint(stopped: RunFolder, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        resume_run(_copy(stopped, tmp_path / "copy"), None, [])
        assert torch.get_num_threads() == 1
    finally:
        torch.set_num_threads(before)


def test_a_change_of_versions_since_the_run_began_is_said(
    stopped: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = _copy(stopped, tmp_path / "copy")
    before = folder.read_environment()
    folder.write_environment({**before, "packages": {**before["packages"], "torch": "1.0"}})
    resume_run(folder, None, [])
    assert "this has changed: torch 1.0 -> " in capsys.readouterr().out


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own, of 1 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if done.returncode != 0:
        pytest.skip("mounting a tmpfs needs more rights")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def _whole_pages(size: int) -> int:
    """Bytes that a file of this size takes on a tmpfs."""
    return (size + PAGE - 1) // PAGE * PAGE


def test_a_full_disk_keeps_the_last_good_checkpoint_and_the_run_goes_on_when_there_is_space(
    whole: RunFolder, small_disk: Path, tmp_path: Path
) -> None:
    checkpoint = CheckpointStore(whole.checkpoints).path(TOTAL_STEPS)
    size = sum(_whole_pages(path.stat().st_size) for path in checkpoint.iterdir())
    filler = small_disk / "filler"
    filler.write_bytes(bytes(2**20 - 5 * size // 2 - 16 * PAGE))  # two checkpoints fit, and little else
    with pytest.raises(RunStopped, match=r"no space left to write .* free space") as stopped:
        start_run(load_tiny(tmp_path), small_disk / "runs", ["full"])
    (path,) = (small_disk / "runs").iterdir()
    folder = RunFolder.open(path)
    assert CheckpointStore(folder.checkpoints).load().run.step > 0
    assert stopped.value.exit_code == 3
    filler.unlink()
    resume_run(folder, None, [])
    assert_same_run(folder, whole)


def test_a_full_disk_ends_the_command_with_3_and_no_traceback(small_disk: Path, tmp_path: Path) -> None:
    (small_disk / "filler").write_bytes(bytes(900_000))
    load_tiny(tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "jepa_lab", "run", str(tmp_path / "tiny.yaml"), "--runs", str(small_disk / "runs")],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 3, done.stderr
    assert "no space left" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
