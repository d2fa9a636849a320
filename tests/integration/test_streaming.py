"""Runs whose images are not in memory: the same results and refusals, and what can happen to files and workers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

import jepa_lab.data.survey as survey_module
from jepa_lab.composition.outcome import RunOutcome
from jepa_lab.composition.start import start_run
from jepa_lab.config.loading import config_digest, dump_pipeline, load_pipeline
from jepa_lab.data.images import Images, to_tensor
from jepa_lab.data.streaming import StreamingBatches
from jepa_lab.errors import DataError, RunFolderError, RunStopped, RunTerminated
from jepa_lab.reprobe import probe_again
from jepa_lab.resume import resume_run
from jepa_lab.summary import print_summary
from jepa_lab.tracking.locks import FileLock
from jepa_lab.tracking.metrics import read_metrics
from jepa_lab.tracking.records import read_record, write_record
from jepa_lab.tracking.run_folder import RunFolder
from jepa_lab.training.checkpoint import CheckpointStore
from jepa_lab.training.pretrain import Pretraining
from tests.integration.folders import copied, load_photos, write_photos
from tests.integration.pipelines import load_tiny
from tests.integration.runs import assert_same_run
from tests.unit.data.files import write_image

COMMAND = ["jepa-lab", "run", "tiny.yaml"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def resident(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> RunOutcome:
    folder = tmp_path_factory.mktemp("resident")
    return start_run(load_photos(folder, photos, "data.residency=resident"), folder / "runs", COMMAND)


@pytest.fixture(scope="module")
def streamed(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> RunOutcome:
    folder = tmp_path_factory.mktemp("streamed")
    return start_run(load_photos(folder, photos, *streaming(0)), folder / "runs", COMMAND)


def streaming(num_workers: int) -> tuple[str, str]:
    return "data.residency=streaming", f"data.num_workers={num_workers}"


def assert_same_outcome(outcome: RunOutcome, expected: RunOutcome) -> None:
    assert_same_run(outcome.folder, expected.folder)
    for part in ("probe", "best_online_probe"):
        assert outcome.result[part] == expected.result[part]
    digests = [run.folder.read_description().dataset.digest for run in (outcome, expected)]  # type: ignore[union-attr]
    assert digests[0] == digests[1]


@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_a_streaming_run_is_bitwise_the_resident_one(
    resident: RunOutcome, photos: Path, tmp_path: Path, num_workers: int
) -> None:
    outcome = start_run(load_photos(tmp_path, photos, *streaming(num_workers)), tmp_path / "runs", COMMAND)
    assert_same_outcome(outcome, resident)


class Killed(BaseException):
    """Stands for a kill: nothing of ours catches it."""


def killed_run(
    tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch, *overrides: str, kill_at: int = 6
) -> RunFolder:
    """A run that was killed behind a step."""
    take_step = Pretraining.after_step

    def kill(self: Pretraining, step: int, *arguments: object) -> None:
        if step == kill_at:
            raise Killed
        take_step(self, step, *arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Pretraining, "after_step", kill)
        with pytest.raises(Killed):
            start_run(load_photos(tmp_path, root, *overrides), tmp_path / "runs", COMMAND)
    (path,) = (tmp_path / "runs").iterdir()
    return RunFolder.open(path)


@pytest.mark.parametrize("num_workers", [0, 3])
def test_a_killed_streaming_run_goes_on_as_the_resident_one(
    resident: RunOutcome, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_workers: int
) -> None:
    overrides = (*streaming(num_workers), "training.checkpoint_every_steps=3")
    folder = killed_run(tmp_path, photos, monkeypatch, *overrides, kill_at=7)
    assert CheckpointStore(folder.checkpoints).load().run.batch == 2  # in the middle of an epoch of four
    outcome = resume_run(folder, None, COMMAND)
    whole = start_run(load_photos(tmp_path, photos, "training.checkpoint_every_steps=3"), tmp_path / "whole", COMMAND)
    assert_same_outcome(outcome, whole)
    assert outcome.result["probe"] == resident.result["probe"]


def test_images_that_come_in_one_piece_can_stream_too(tmp_path: Path) -> None:
    outcomes = [
        start_run(
            load_tiny(tmp_path, f"data.residency={residency}", "data.max_images=80", "probe.method.c_grid=[0.1]"),
            tmp_path / residency,
            COMMAND,
        )
        for residency in ("resident", "streaming")
    ]
    assert_same_outcome(outcomes[1], outcomes[0])


def test_the_probe_s_own_images_stream_too(resident: RunOutcome, photos: Path, tmp_path: Path) -> None:
    overrides = (*streaming(1), "probe.data={dataset: image_folder}", f"probe.data.root={photos}")
    outcome = start_run(load_photos(tmp_path, photos, *overrides), tmp_path / "runs", COMMAND)
    assert_same_outcome(outcome, resident)
    surveys = json.loads((outcome.folder.path / "data.json").read_text())["surveys"]
    assert set(surveys) == {"data", "probe.data"}


def test_a_streaming_run_never_holds_all_images(
    streamed: RunOutcome, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(images: Images) -> Tensor:
        assert len(images) <= 18, "the validation split is all that may be held"
        return to_tensor(images)

    monkeypatch.setattr("jepa_lab.evaluation.to_tensor", refuse)
    monkeypatch.setattr("jepa_lab.data.loading.to_tensor", refuse)
    monkeypatch.setattr("jepa_lab.data.loading.load_files", refuse)
    outcome = start_run(load_photos(tmp_path, photos, *streaming(0)), tmp_path / "runs", COMMAND)
    assert_same_outcome(outcome, streamed)


def test_a_run_is_probed_again_in_either_residency(streamed: RunOutcome, tmp_path: Path) -> None:
    shutil.copytree(streamed.folder.path, tmp_path / "copy")
    folder = RunFolder.open(tmp_path / "copy")
    residencies = ("resident", "streaming")
    found = [probe_again(folder, [f"data.residency={name}"], None, score_test=True)[1] for name in residencies]
    assert found[0]["probe"] == found[1]["probe"]
    expected = streamed.result["metrics"]
    assert found[0]["metrics"] == {name: expected[name] for name in found[0]["metrics"]}


def test_a_run_goes_on_however_its_images_are_read(
    resident: RunOutcome, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = killed_run(tmp_path, photos, monkeypatch, *streaming(2))
    given = load_pipeline(folder.config, ["data.num_workers=0", "data.residency=resident"]).pipeline
    assert config_digest(given) == config_digest(load_pipeline(folder.config).pipeline)
    with monkeypatch.context() as patch:
        patch.setattr("jepa_lab.composition.work.final_evaluation", lambda *_: (_ for _ in ()).throw(Killed))
        patch.setattr("jepa_lab.data.loading.survey_files", None)
        with pytest.raises(Killed):
            resume_run(folder, given, COMMAND)
    assert_same_outcome(resume_run(folder, None, COMMAND), resident)


# The survey


def count_surveys(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that grows by the number of images at each look."""
    looks: list[int] = []
    look = survey_module._look_at_all

    def counting(files: object, pixels: object, *arguments: object) -> object:
        looks.append(pixels.shape[0])  # type: ignore[attr-defined]
        return look(files, pixels, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(survey_module, "_look_at_all", counting)
    return looks


def test_a_resumed_run_does_not_look_at_unchanged_files_again(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = count_surveys(monkeypatch)
    folder = killed_run(tmp_path, photos, monkeypatch, *streaming(0))
    assert looks == [90]
    resume_run(folder, None, COMMAND)
    assert looks == [90]


def test_touching_a_file_is_not_a_change(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = copied(photos, tmp_path / "photos")
    looks = count_surveys(monkeypatch)
    folder = killed_run(tmp_path, root, monkeypatch, *streaming(0))
    os.utime(root / "train/bee/03.png", ns=(1, 1))
    assert resume_run(folder, None, COMMAND).result["status"] == "FINISHED"
    assert looks == [90, 90]


def change_pixel(root: Path) -> None:
    write_image(root / "train/bee/03.png", size=(12, 10), seed=5)


def remove_file(root: Path) -> None:
    (root / "test/bee/03.png").unlink()


def add_file(root: Path) -> None:
    write_image(root / "train/wasp/99.png", size=(12, 10))


def rename_class(root: Path) -> None:
    for split in ("train", "test"):
        (root / split / "bee").rename(root / split / "bumblebee")


@pytest.mark.parametrize("residency", ["resident", "streaming"])
@pytest.mark.parametrize("change", [change_pixel, remove_file, add_file, rename_class])
def test_changed_images_are_refused_on_resume(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, residency: str, change: Callable[[Path], None]
) -> None:
    root = copied(photos, tmp_path / "photos")
    settings = (f"data.residency={residency}", "data.num_workers=0")
    folder = killed_run(tmp_path, root, monkeypatch, *settings, kill_at=1)
    change(root)
    with pytest.raises(RunFolderError, match=r"images of data\.dataset='image_folder' have changed"):
        resume_run(folder, None, COMMAND)


def test_other_pixels_behind_the_same_size_and_date_are_refused_on_resume(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = copied(photos, tmp_path / "photos")
    file = root / "train/bee/03.png"
    contents = []
    for colour in (10, 200):
        Image.new("RGB", (12, 10), (colour,) * 3).save(file, compress_level=0)
        contents.append(file.read_bytes())
    assert len(contents[0]) == len(contents[1])
    file.write_bytes(contents[0])
    status = file.stat()
    folder = killed_run(tmp_path, root, monkeypatch, *streaming(0), kill_at=1)
    file.write_bytes(contents[1])
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(RunFolderError, match=r"images of data\.dataset='image_folder' have changed"):
        resume_run(folder, None, COMMAND)


@pytest.mark.parametrize("residency", ["resident", "streaming"])
def test_a_run_whose_images_have_changed_is_not_probed_again(
    streamed: RunOutcome, photos: Path, tmp_path: Path, residency: str
) -> None:
    root = copied(photos, tmp_path / "photos")
    outcome = start_run(load_photos(tmp_path, root, *streaming(0), "training.epochs=1"), tmp_path / "runs", COMMAND)
    before = outcome.folder.read_description().dataset
    change_pixel(root)
    with pytest.raises(RunFolderError, match=r"have changed since .*\(digest \w+, now \w+\).*restore them") as caught:
        probe_again(outcome.folder, [f"data.residency={residency}"], None)
    assert before is not None
    assert f"(digest {before.digest}, now " in str(caught.value)
    assert not list((outcome.folder.path / "probes").iterdir())


def test_a_survey_without_its_digest_is_not_trusted(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = killed_run(tmp_path, photos, monkeypatch, *streaming(0), kill_at=1)
    file = folder.path / "data.json"
    content = read_record(file, "data", 1)
    del content["surveys"]["data"]["digest"]
    write_record(file, "data", 1, content)
    assert resume_run(folder, None, COMMAND).result["status"] == "FINISHED"
    assert "data.json is damaged: surveys.data.digest" in folder.log.read_text()


@pytest.mark.parametrize("damage", ["flip", "cut", "not json"])
def test_a_damaged_survey_is_not_trusted(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    folder = killed_run(tmp_path, photos, monkeypatch, *streaming(0), kill_at=1)
    record = folder.path / "data.json"
    text = record.read_text()
    record.write_text({"flip": text.replace('"skipped": []', '"skipped": [["train/ant/00.png", "x"]]'),
                       "cut": text[: len(text) // 2], "not json": "damaged"}[damage])  # fmt: skip
    looks = count_surveys(monkeypatch)
    assert resume_run(folder, None, COMMAND).result["status"] == "FINISHED"
    assert looks == [90]
    assert "data.json" in folder.log.read_text()
    assert "every image is looked at again" in folder.log.read_text()
    assert json.loads(record.read_text())["surveys"]["data"]["skipped"] == []


# Bad files


def break_files(root: Path) -> list[str]:
    names = ["train/ant/02.png", "train/wasp/00.png", "test/bee/05.png"]
    for name in names:
        (root / name).write_bytes(b"no image")
    return names


@pytest.mark.parametrize("residency", ["resident", "streaming"])
def test_a_bad_file_is_named_before_anything_is_written(photos: Path, tmp_path: Path, residency: str) -> None:
    root = copied(photos, tmp_path / "photos")
    break_files(root)
    with pytest.raises(DataError, match=r"train/ant/02\.png cannot be decoded.*data\.on_bad_image=skip"):
        start_run(load_photos(tmp_path, root, f"data.residency={residency}"), tmp_path / "runs", COMMAND)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("settings", [("data.residency=resident",), streaming(2)], ids=str)
def test_skipping_bad_files_is_a_run_without_them(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], settings: tuple[str, ...]
) -> None:
    broken, without = copied(photos, tmp_path / "broken"), copied(photos, tmp_path / "without")
    names = break_files(broken)
    for name in names:
        (without / name).unlink()
    skipping = (*settings, "data.on_bad_image=skip")
    outcome = start_run(load_photos(tmp_path, broken, *skipping), tmp_path / "runs", COMMAND)
    expected = start_run(load_photos(tmp_path, without, *settings), tmp_path / "expected", COMMAND)
    assert_same_outcome(outcome, expected)
    assert outcome.result["skipped_images"] == {"count": 3, "files": names}
    assert expected.result["skipped_images"] == {"count": 0, "files": []}
    print_summary(outcome.result, outcome.folder.path, "")
    assert "3 images that cannot be decoded" in " ".join(capsys.readouterr().out.split())
    log = outcome.folder.log.read_text()
    assert all(f"{broken / name} cannot be decoded" in log for name in names)


def test_the_name_of_a_file_forges_no_line_of_the_log(
    photos: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root = copied(photos, tmp_path / "photos")
    (root / "train/ant/x\nERROR root: y\x1b[31m.png").write_bytes(b"no image")
    settings = (*streaming(0), "data.on_bad_image=skip", "training.epochs=1")
    outcome = start_run(load_photos(tmp_path, root, *settings), tmp_path / "runs", COMMAND)
    print_summary(outcome.result, outcome.folder.path, "")
    assert outcome.result["skipped_images"]["files"] == [r"train/ant/x\nERROR root: y\x1b[31m.png"]
    log = outcome.folder.log.read_text()
    assert r"ant/x\nERROR root: y\x1b[31m.png cannot be decoded" in log
    shown = capfd.readouterr()
    for text in (log, shown.out, shown.err):
        assert "\nERROR" not in text
        assert "\x1b[31m" not in text


def test_other_bad_files_than_at_the_start_are_refused(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = copied(photos, tmp_path / "photos")
    break_files(root)
    folder = killed_run(tmp_path, root, monkeypatch, *streaming(0), "data.on_bad_image=skip", kill_at=1)
    (root / "train/bee/07.png").write_bytes(b"no image")
    with pytest.raises(RunFolderError, match="have changed"):
        resume_run(folder, None, COMMAND)


@pytest.mark.parametrize("residency", ["resident", "streaming"])
def test_skipping_a_whole_training_class_is_refused(photos: Path, tmp_path: Path, residency: str) -> None:
    root = copied(photos, tmp_path / "photos")
    for file in (root / "train/bee").iterdir():
        file.write_bytes(b"no image")
    settings = (f"data.residency={residency}", "data.on_bad_image=skip")
    with pytest.raises(DataError, match=r"leaves nothing of class 'bee' of the training images"):
        start_run(load_photos(tmp_path, root, *settings), tmp_path / "runs", COMMAND)


# Files and workers that are lost


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_file_that_is_lost_in_training_stops_the_run_which_goes_on_when_it_is_back(
    resident: RunOutcome, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_workers: int
) -> None:
    root = copied(photos, tmp_path / "photos")
    lost, kept = root / "train/bee", root / "hidden"
    take_step = Pretraining.after_step

    def lose(self: Pretraining, step: int, *arguments: object) -> None:
        if step == 5:
            lost.rename(kept)
        take_step(self, step, *arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Pretraining, "after_step", lose)
        with pytest.raises(RunStopped, match=r"train/bee/\d\d\.png cannot be decoded.*restore the file") as caught:
            start_run(load_photos(tmp_path, root, *streaming(num_workers)), tmp_path / "runs", COMMAND)
    assert caught.value.exit_code == 3
    kept.rename(lost)
    (path,) = (tmp_path / "runs").iterdir()
    assert_same_outcome(resume_run(RunFolder.open(path), None, COMMAND), resident)


def test_workers_that_die_of_the_signal_that_stops_the_run_do_not_hide_it(
    resident: RunOutcome, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    give_out = StreamingBatches.next

    def die(self: StreamingBatches) -> tuple[Tensor, Tensor]:
        calls.append(1)
        if len(calls) == 7:
            os.kill(os.getpid(), signal.SIGTERM)
            raise RunStopped("a process that reads images died")
        return give_out(self)

    with monkeypatch.context() as patch:
        patch.setattr(StreamingBatches, "next", die)
        with pytest.raises(RunTerminated):
            start_run(load_photos(tmp_path, photos, *streaming(0)), tmp_path / "runs", COMMAND)
    (path,) = (tmp_path / "runs").iterdir()
    folder = RunFolder.open(path)
    assert CheckpointStore(folder.checkpoints).load().run.step == 6
    resumed = resume_run(folder, None, COMMAND)
    first, second = (CheckpointStore(run.folder.checkpoints).load().model for run in (resumed, resident))
    assert all(torch.equal(first[name], second[name]) for name in first)


def start_process(tmp_path: Path, photos: Path) -> tuple[subprocess.Popen[str], Path]:
    """A long streaming run with two workers, as a process that has taken a few steps."""
    endless = ("training.epochs=100000", "training.checkpoint_every_steps=2", "probe.every_epochs=9999")
    loaded = load_photos(tmp_path, photos, *streaming(2), *endless)
    file = tmp_path / "long.yaml"
    file.write_text(dump_pipeline(loaded.pipeline))
    process = subprocess.Popen(
        [sys.executable, "-m", "jepa_lab", "run", str(file), "--runs", str(tmp_path / "runs")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not any((tmp_path / "runs").glob("*/checkpoints/*4*")):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)
    (path,) = (tmp_path / "runs").iterdir()
    return process, path


def children(process: int) -> list[int]:
    listing = Path(f"/proc/{process}/task/{process}/children").read_text()
    return [int(child) for child in listing.split()]


needs_proc = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="finds child processes in /proc")


@needs_proc
@pytest.mark.slow
def test_a_killed_worker_ends_the_run_with_a_remedy_and_its_checkpoints(photos: Path, tmp_path: Path) -> None:
    process, path = start_process(tmp_path, photos)
    os.kill(children(process.pid)[0], signal.SIGKILL)
    _, message = process.communicate(timeout=60)
    assert process.returncode == 3, message
    assert "a process that reads images died" in message
    assert "lower data.num_workers (now 2" in message
    assert CheckpointStore(path / "checkpoints").load().run.step >= 2


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_to_the_whole_group_stops_the_run_with_its_state(
    photos: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    process, path = start_process(tmp_path, photos)
    os.killpg(process.pid, number)
    _, message = process.communicate(timeout=60)
    assert process.returncode == code, message
    assert "Traceback" not in message
    assert f"the last checkpoint is at step {CheckpointStore(path / 'checkpoints').load().run.step}" in message


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_whose_workers_hang_is_stopped_by_one_signal_with_its_state(
    photos: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    process, path = start_process(tmp_path, photos)
    workers = children(process.pid)
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)
    time.sleep(1)  # until what was read ahead is used up
    os.kill(process.pid, number)
    _, message = process.communicate(timeout=60)
    assert process.returncode == code, message
    assert "Traceback" not in message
    checkpoints = CheckpointStore(path / "checkpoints")
    assert f"the last checkpoint is at step {checkpoints.load().run.step}" in message
    assert not any(Path(f"/proc/{worker}").exists() for worker in workers)
    rows = read_metrics(path / "metrics.jsonl")
    assert checkpoints.load().run.step >= rows[-1].step


def small_shared_memory(size: str, command: list[str]) -> list[str]:
    """The command where /dev/shm has so many bytes, in a mount namespace of its own."""
    unshare = ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs -o size={size} tmpfs /dev/shm && exec "$@"', "sh"]
    tried = subprocess.run([*unshare, "true"], capture_output=True, check=False) if shutil.which("unshare") else None
    if tried is None or tried.returncode != 0:
        pytest.skip("may not mount a small /dev/shm")
    return [*unshare, *command]


@pytest.mark.slow
@pytest.mark.parametrize("size", ["4k", "700k"])
def test_a_full_shared_memory_stops_the_run_with_a_remedy(photos: Path, tmp_path: Path, size: str) -> None:
    larger = ("data.image_size=64", "encoder.patch_size=16", "training.batch_size=36")
    file = tmp_path / "large.yaml"
    file.write_text(dump_pipeline(load_photos(tmp_path, photos, *streaming(2), *larger).pipeline))
    command = [sys.executable, "-m", "jepa_lab", "run", str(file), "--runs", str(tmp_path / "runs")]
    ended = subprocess.run(
        small_shared_memory(size, command),
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert ended.returncode == 3, ended.stderr
    assert "No space left on device" in ended.stderr
    assert "/dev/shm" in ended.stderr
    assert "Traceback" not in ended.stderr


@needs_proc
@pytest.mark.slow
def test_the_workers_of_a_killed_run_do_not_hold_its_lock_and_end(photos: Path, tmp_path: Path) -> None:
    process, path = start_process(tmp_path, photos)
    workers = children(process.pid)
    assert len(workers) == 2
    process.kill()
    process.wait()
    assert any(Path(f"/proc/{worker}").exists() for worker in workers), "too late to tell"
    lock = FileLock(path / "run.lock", "the run")
    assert lock.try_acquire()
    lock.release()
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{worker}").exists() for worker in workers):
        assert time.monotonic() < deadline, "the workers live on"
        time.sleep(0.05)
    process.stderr.close()  # type: ignore[union-attr]
