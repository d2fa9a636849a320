"""Where images live."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

import jepa_lab.data.residency as residency_module
from jepa_lab.build import prepare_data
from jepa_lab.data.centre_squares import stored_pictures
from jepa_lab.data.images import HeldPictures, LazyImages
from jepa_lab.data.residency import DEVICE_SHARE, HOST_SHARE, Loading, available_host_memory
from jepa_lab.data.workers import default_worker_count
from jepa_lab.errors import ConfigError
from tests.integration.folders import load_photos, write_photos

GIB = 2**30
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def loading(residency: str, device: torch.device = CPU) -> Loading:
    return Loading.of(residency, 0, device)  # type: ignore[arg-type]


def machine(root: Path, available_gib: int, groups: str = "") -> Path:
    """A file system that tells of memory."""
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemTotal: 99 kB\nMemAvailable:   {available_gib * 2**20} kB\n")
    (root / "proc/self/cgroup").write_text(groups)
    return root


def group(folder: Path, **files: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(f"{content}\n")


def test_memory_is_what_the_machine_has_available(tmp_path: Path) -> None:
    assert available_host_memory(machine(tmp_path, 7)) == 7 * GIB


def test_the_smallest_limit_of_the_control_groups_counts(tmp_path: Path) -> None:
    root = machine(tmp_path, 7, "0::/jobs/mine\n")
    group(root / "sys/fs/cgroup/jobs/mine", memory__max="max", memory__current=GIB)
    assert available_host_memory(root) == 7 * GIB
    group(root / "sys/fs/cgroup/jobs", memory__max=4 * GIB, memory__current=3 * GIB)
    assert available_host_memory(root) == GIB
    group(root / "sys/fs/cgroup/jobs", memory__stat=f"anon 5\ninactive_file {GIB}")
    assert available_host_memory(root) == 2 * GIB


def test_control_groups_of_version_1_count_too(tmp_path: Path) -> None:
    root = machine(tmp_path, 7, "12:memory:/docker/abc\n3:cpu:/docker/abc\n")
    group(root / "sys/fs/cgroup/memory", memory__limit_in_bytes=3 * GIB, memory__usage_in_bytes=GIB)
    assert available_host_memory(root) == 2 * GIB


def test_this_machine_has_memory() -> None:
    assert 2**20 < available_host_memory() < 2**50


def test_auto_keeps_what_fits_into_the_stated_share(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(residency_module, "available_host_memory", lambda: 100)
    monkeypatch.setattr(residency_module, "_device_memory", lambda device: 10)
    host, device = int(100 * HOST_SHARE), int(10 * DEVICE_SHARE)
    assert loading("auto").keeps_resident(host, host)
    assert not loading("auto").keeps_resident(host, host + 1)
    assert loading("auto", CUDA).keeps_resident(device, host)
    assert not loading("auto", CUDA).keeps_resident(device + 1, host)
    assert not loading("auto", CUDA).keeps_resident(device, host + 1)


def test_a_named_residency_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(residency_module, "available_host_memory", lambda: GIB)
    assert loading("resident").keeps_resident(GIB, GIB)
    assert not loading("streaming").keeps_resident(0, 0)


def test_images_that_cannot_be_resident_are_refused_before_they_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = write_photos(tmp_path / "photos")
    monkeypatch.setattr(residency_module, "available_host_memory", lambda: 1000)
    monkeypatch.setattr("jepa_lab.data.loading.load_files", None)
    with pytest.raises(ConfigError, match=r"data\.residency=resident takes .* use data\.residency=auto"):
        prepare_data(load_photos(tmp_path, photos, "data.residency=resident").pipeline)


def test_pinned_memory_is_for_cuda() -> None:
    assert loading("auto", CUDA).workers.pin_memory
    assert not loading("auto").workers.pin_memory


def test_the_default_is_a_worker_for_each_core_of_this_process_but_one(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, expected in ((1, 1), (2, 1), (16, 15)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: set(range(cores)))
        assert default_worker_count() == expected
        assert Loading.of("auto", None, CPU).workers.count == expected


def test_a_folder_that_does_not_fit_streams_without_being_decoded_into_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos = write_photos(tmp_path / "photos")
    pipeline = load_photos(tmp_path, photos, "data.num_workers=0").pipeline
    needed = 90 * 3 * 12 * 12 / HOST_SHARE
    monkeypatch.setattr(residency_module, "available_host_memory", lambda: needed)
    resident = prepare_data(pipeline)
    assert isinstance(stored_pictures(resident.train.images), HeldPictures)
    monkeypatch.setattr(residency_module, "available_host_memory", lambda: needed - 1)
    monkeypatch.setattr("jepa_lab.data.loading.load_files", None)
    streaming = prepare_data(pipeline)
    assert isinstance(stored_pictures(streaming.train.images), LazyImages)
    assert streaming.digest == resident.digest
    assert torch.equal(streaming.mean, resident.mean)
    assert torch.equal(streaming.std, resident.std)
