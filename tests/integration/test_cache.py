"""Files that are decoded once: the entry that is made, when it is made again, and what can go wrong with it."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

import jepa_lab.data.image_files as image_files_module
from jepa_lab.build import prepare_data, prepare_probe_data
from jepa_lab.composition.outcome import RunOutcome
from jepa_lab.composition.start import start_run
from jepa_lab.data.cache import VERSION, cache_folder
from jepa_lab.data.images import to_tensor
from jepa_lab.errors import ConfigError, DataError, RunStopped
from jepa_lab.inspection import inspect_pipeline
from jepa_lab.tracking.locks import FileLock
from jepa_lab.tracking.records import read_record, write_record
from tests.integration.folders import copied, load_photos, write_photos
from tests.integration.pipelines import load_tiny
from tests.integration.runs import assert_same_run
from tests.unit.data.files import write_image

SHORT = ("training.epochs=1", "probe.method.c_grid=[1.0]")
CACHED = ("data.cache=true", "data.num_workers=0", "data.residency=streaming")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("JEPA_LAB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were decoded in this process."""
    names: list[str] = []
    decode = image_files_module.decode_picture

    def note(path: Path, side: int) -> tuple[torch.Tensor, tuple[int, int]]:
        names.append(path.name)
        return decode(path, side)

    monkeypatch.setattr(image_files_module, "decode_picture", note)
    return names


def prepare(tmp_path: Path, root: Path, *overrides: str) -> Any:
    return prepare_data(load_photos(tmp_path, root, *CACHED, *overrides).pipeline)


def entry(cache: Path) -> Path:
    """The one entry."""
    (folder,) = (path for path in cache.iterdir() if path.is_dir())
    return folder


@pytest.fixture(scope="module")
def uncached(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> RunOutcome:
    folder = tmp_path_factory.mktemp("uncached")
    return start_run(load_photos(folder, photos, "data.residency=resident"), folder / "runs", ["run"])


@pytest.mark.parametrize("settings", ["resident 0", "streaming 0", "streaming 2"])
def test_a_cached_run_is_bitwise_the_one_without_a_cache(
    uncached: RunOutcome, photos: Path, tmp_path: Path, settings: str
) -> None:
    residency, workers = settings.split()
    overrides = ("data.cache=true", f"data.residency={residency}", f"data.num_workers={workers}")
    prepare(tmp_path, photos)
    outcome = start_run(load_photos(tmp_path, photos, *overrides), tmp_path / "runs", ["run"])
    assert_same_run(outcome.folder, uncached.folder)
    assert outcome.result["probe"] == uncached.result["probe"]
    assert outcome.folder.read_description().dataset == uncached.folder.read_description().dataset


def test_files_are_decoded_once(photos: Path, tmp_path: Path, cache: Path, decoded: list[str]) -> None:
    first = prepare(tmp_path, photos)
    assert len(decoded) == 90
    second = prepare(tmp_path, photos)
    assert len(decoded) == 90
    assert first.digest == second.digest
    assert torch.equal(to_tensor(first.train.images), to_tensor(second.train.images))
    assert sorted(path.name for path in entry(cache).iterdir()) == ["cache.json", "pixels.bin"]
    assert (entry(cache) / "pixels.bin").stat().st_size == 90 * (3 * 12 * 12 + 2 * 4)
    prepare(tmp_path, photos, "data.image_size=4", "encoder.patch_size=2")
    assert len(decoded) == 180
    assert sum(path.is_dir() for path in cache.iterdir()) == 2


def add(root: Path) -> None:
    write_image(root / "train/wasp/99.png", size=(12, 10))


def remove(root: Path) -> None:
    (root / "train/wasp/00.png").unlink()


def change(root: Path) -> None:
    write_image(root / "test/wasp/00.png", size=(12, 10))


def touch(root: Path) -> None:
    os.utime(root / "train/wasp/00.png", ns=(1, 1))


@pytest.mark.parametrize("spoil", [add, remove, change, touch])
def test_files_that_changed_are_decoded_again(photos: Path, tmp_path: Path, decoded: list[str], spoil: Any) -> None:
    root = copied(photos, tmp_path / "photos")
    before = prepare(tmp_path, root)
    decoded.clear()
    spoil(root)
    again = prepare(tmp_path, root)
    assert len(decoded) in (89, 90, 91)
    assert "added, removed or changed" in again.notes[0]
    assert (again.digest == before.digest) == (spoil is touch)
    uncached = prepare_data(load_photos(tmp_path, root).pipeline)
    assert again.digest == uncached.digest
    assert torch.equal(again.mean, uncached.mean)


@pytest.mark.parametrize("file", ["pixels.bin", "cache.json"])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove", "empty"])
def test_a_damaged_entry_is_made_again(
    photos: Path, tmp_path: Path, cache: Path, decoded: list[str], file: str, damage: str
) -> None:
    expected = to_tensor(prepare(tmp_path, photos).train.images)
    decoded.clear()
    path = entry(cache) / file
    content = path.read_bytes()
    spoiled = {"flip": content[:100] + bytes([content[100] ^ 1]) + content[101:], "cut": content[:-2], "empty": b""}
    path.unlink()
    if damage != "remove":
        path.write_bytes(spoiled[damage])
    again = prepare(tmp_path, photos)
    assert len(decoded) == 90
    assert "the image cache was made again" in again.notes[0]
    assert torch.equal(to_tensor(again.train.images), expected)
    decoded.clear()
    assert prepare(tmp_path, photos).notes == ()
    assert not decoded


def test_the_log_of_the_run_says_that_an_entry_was_damaged(photos: Path, tmp_path: Path, cache: Path) -> None:
    prepare(tmp_path, photos)
    (entry(cache) / "pixels.bin").write_bytes(b"")
    outcome = start_run(load_photos(tmp_path, photos, *CACHED, *SHORT), tmp_path / "runs", ["run"])
    assert "pixels.bin is damaged" in outcome.folder.log.read_text()


def test_skipped_files_are_remembered_and_still_bad_without_skipping(photos: Path, tmp_path: Path) -> None:
    root = copied(photos, tmp_path / "photos")
    (root / "train/ant/05.png").write_bytes(b"no image")
    for _ in range(2):
        found = prepare(tmp_path, root, "data.on_bad_image=skip")
        assert [image.name for image in found.skipped] == ["train/ant/05.png"]
    uncached = prepare_data(load_photos(tmp_path, root, "data.on_bad_image=skip").pipeline)
    assert found.digest == uncached.digest
    assert torch.equal(found.train.labels, uncached.train.labels)
    with pytest.raises(DataError, match=r"train/ant/05\.png cannot be decoded"):
        prepare(tmp_path, root)


def test_a_bad_file_leaves_nothing_behind(photos: Path, tmp_path: Path, cache: Path) -> None:
    root = copied(photos, tmp_path / "photos")
    (root / "train/ant/05.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"train/ant/05\.png cannot be decoded"):
        prepare(tmp_path, root)
    assert [path.suffix for path in cache.iterdir()] == [".lock"]


@pytest.mark.parametrize("moment", ["no room", "in the middle"])
def test_a_full_disk_leaves_nothing_behind_and_says_what_to_do(
    photos: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        if moment == "no room":
            patch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
        else:
            patch.setattr("jepa_lab.data.cache.os.fsync", full)
        with pytest.raises(RunStopped, match=r"no space left for the image cache .*JEPA_LAB_CACHE.*data\.cache=false"):
            prepare(tmp_path, photos)
    assert [path.suffix for path in cache.iterdir()] == [".lock"]
    prepare(tmp_path, photos)


def test_leftovers_of_killed_writers_are_removed(photos: Path, tmp_path: Path, cache: Path, decoded: list[str]) -> None:
    prepare(tmp_path, photos)
    for suffix in (".tmp", ".old"):
        left = entry(cache).with_suffix(suffix)
        left.mkdir()
        (left / "pixels.bin").write_bytes(b"half")
        prepare(tmp_path, photos)
        assert not left.exists()
    assert len(decoded) == 90


@pytest.mark.parametrize("suffix", ["", ".tmp", ".old"])
@pytest.mark.parametrize("kind", ["file", "link"])
def test_what_is_in_the_way_of_an_entry_is_removed(
    photos: Path, tmp_path: Path, cache: Path, suffix: str, kind: str
) -> None:
    prepare(tmp_path, photos)
    (tmp_path / "elsewhere").mkdir()
    in_the_way, target = entry(cache).with_suffix(suffix), tmp_path / "elsewhere" / "kept"
    target.write_bytes(b"of somebody else")
    if suffix == "":
        in_the_way.rename(cache / "aside")
    if kind == "file":
        in_the_way.write_bytes(b"no folder")
    else:
        in_the_way.symlink_to(target.parent if suffix else target)
    found = prepare(tmp_path, photos)
    assert found.digest == prepare_data(load_photos(tmp_path, photos).pipeline).digest
    assert {path.suffix for path in cache.iterdir()} == {".lock", ""}
    assert target.read_bytes() == b"of somebody else"


@pytest.mark.parametrize(
    ("spoil", "named"),
    [
        (lambda content: content.pop("digest"), "digest"),
        (lambda content: content.update(skipped=3), "skipped"),
        (lambda content: content.update(shape=[45, 6, 12, 12]), "shape"),
        (lambda content: content.update(has_sizes=False), "shape"),
        (lambda content: content.update(more=1), "more"),
    ],
)
def test_a_record_that_is_whole_but_none_of_ours_is_made_again(
    photos: Path, tmp_path: Path, cache: Path, decoded: list[str], spoil: Any, named: str
) -> None:
    expected = prepare(tmp_path, photos).digest
    content = read_record(entry(cache) / "cache.json", "cache", VERSION)
    spoil(content)
    write_record(entry(cache) / "cache.json", "cache", VERSION, content)
    decoded.clear()
    again = prepare(tmp_path, photos)
    assert len(decoded) == 90
    assert "cache.json is damaged" in again.notes[0]
    assert named in again.notes[0]
    assert again.digest == expected


def test_an_entry_of_an_older_version_is_made_again(
    photos: Path, tmp_path: Path, cache: Path, decoded: list[str]
) -> None:
    expected = prepare(tmp_path, photos).digest
    file = entry(cache) / "cache.json"
    write_record(file, "cache", VERSION - 1, read_record(file, "cache", VERSION))
    decoded.clear()
    assert prepare(tmp_path, photos).digest == expected
    assert len(decoded) == 90


MAKE = """
import os, sys, time
from pathlib import Path
import jepa_lab.data.image_files as image_files
from jepa_lab.build import prepare_data
from tests.integration.folders import load_photos
decode = image_files.decode_picture
def slow(path, size):
    time.sleep(float(sys.argv[3]))
    print("decoded", flush=True)
    return decode(path, size)
image_files.decode_picture = slow
overrides = ("data.cache=true", "data.num_workers=0", "data.residency=streaming")
print(prepare_data(load_photos(Path(sys.argv[1]), Path(sys.argv[2]), *overrides).pipeline).digest)
"""


def make(tmp_path: Path, photos: Path, seconds: float) -> subprocess.Popen[str]:
    """Another process that opens the entry, taking so long over each file that it decodes."""
    return subprocess.Popen(
        [sys.executable, "-c", MAKE, str(tmp_path), str(photos), str(seconds)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def test_a_killed_writer_leaves_no_half_entry(photos: Path, tmp_path: Path, cache: Path, decoded: list[str]) -> None:
    process = make(tmp_path, photos, 0.02)
    assert process.stdout is not None
    assert process.stdout.readline() == "decoded\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert {path.suffix for path in cache.iterdir()} == {".lock", ".tmp"}
    found = prepare(tmp_path, photos)
    assert len(decoded) == 90
    assert found.notes == ()
    assert {path.suffix for path in cache.iterdir()} == {".lock", ""}


@pytest.mark.slow
def test_two_processes_at_once_make_one_entry(photos: Path, tmp_path: Path, cache: Path) -> None:
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
    processes = [make(folder, photos, 0.002) for folder in folders]
    outputs = [process.communicate(timeout=60)[0].splitlines() for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert sorted(len(lines) for lines in outputs) == [1, 91]  # one decoded, the other waited for it
    assert outputs[0][-1] == outputs[1][-1]


@pytest.mark.slow
def test_an_entry_is_not_opened_while_another_process_holds_it(photos: Path, tmp_path: Path, cache: Path) -> None:
    prepare(tmp_path, photos)
    with FileLock(entry(cache).with_suffix(".lock"), "the entry") as lock:
        lock.acquire(0)
        process = make(tmp_path, photos, 0)
        time.sleep(0.2)
        assert process.poll() is None
    assert process.communicate(timeout=60)[0].count("\n") == 1


def test_data_in_one_piece_cannot_be_cached(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.cache=true is for data sets of image files.*set data\.cache=false"):
        prepare_data(load_tiny(tmp_path, "data.cache=true").pipeline)
    with pytest.raises(ConfigError, match=r"data\.cache=true is for data sets of image files"):
        inspect_pipeline(load_tiny(tmp_path, "data.cache=true"))
    probed = load_tiny(tmp_path, "probe.data={dataset: digits, cache: true}").pipeline
    with pytest.raises(ConfigError, match=r"probe\.data\.cache=true is for .*set probe\.data\.cache=false"):
        prepare_probe_data(probed, prepare_data(probed))


def test_the_folder_of_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("JEPA_LAB_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder() == tmp_path / "xdg" / "jepa-lab"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_folder() == tmp_path / ".cache" / "jepa-lab"


def test_without_a_home_folder_the_cache_needs_its_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JEPA_LAB_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", homeless)
    with pytest.raises(ConfigError, match="set JEPA_LAB_CACHE=FOLDER"):
        cache_folder()


def test_the_record_tells_what_is_in_the_entry(photos: Path, tmp_path: Path, cache: Path) -> None:
    found = prepare(tmp_path, photos)
    record = json.loads((entry(cache) / "cache.json").read_text())
    assert record["format"] == "jepa-lab cache"
    assert record["format_version"] == VERSION
    assert record["shape"] == [90, 3, 12, 12]
    assert record["has_sizes"]
    assert record["class_names"] == ["ant", "bee", "wasp"]
    assert record["source"] == str(photos)
    assert record["digest"] == found.digest
