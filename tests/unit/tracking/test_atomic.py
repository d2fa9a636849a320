"""Atomic files: the old one or the new one, and failures in words."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import NoReturn

import pytest

from jepa_lab.errors import RunFolderError, RunStopped
from jepa_lab.tracking import atomic
from jepa_lab.tracking.records import read_record, write_record


def _fail_with(code: int) -> object:
    def fail(*_: object) -> NoReturn:
        raise OSError(code, os.strerror(code))

    return fail


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_keeps_the_old_file_and_says_what_to_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, code: int
) -> None:
    path = tmp_path / "state.json"
    atomic.write_json_atomically(path, {"step": 1})
    monkeypatch.setattr(atomic.os, step, _fail_with(code))
    with pytest.raises(RunStopped, match="free space") as caught:
        atomic.write_json_atomically(path, {"step": 2})
    assert caught.value.exit_code == 3
    assert str(path) in str(caught.value)
    assert json.loads(path.read_text()) == {"step": 1}
    assert [entry.name for entry in tmp_path.iterdir()] == ["state.json"]


@pytest.mark.parametrize("code", [errno.EACCES, errno.EROFS])
def test_a_place_that_may_not_be_written_is_a_run_folder_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    monkeypatch.setattr(atomic.tempfile, "mkstemp", lambda **_: _fail_with(code)())  # type: ignore[operator]
    with pytest.raises(RunFolderError, match="write permission"):
        atomic.write_text_atomically(tmp_path / "x", "y")


@pytest.mark.parametrize("code", [errno.ENOENT, errno.ENAMETOOLONG, errno.EEXIST, errno.EISDIR, errno.ENOTDIR])
def test_a_place_that_cannot_be_is_a_run_folder_error(tmp_path: Path, code: int) -> None:
    with pytest.raises(RunFolderError, match=f"{tmp_path}: {os.strerror(code)}; choose another"):  # noqa: SIM117
        with atomic.explained_writes(tmp_path):
            raise OSError(code, os.strerror(code))


def test_a_failure_that_is_not_the_users_is_not_explained_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic.os, "replace", _fail_with(errno.EBADF))
    with pytest.raises(OSError, match="Bad file descriptor"):
        atomic.write_text_atomically(tmp_path / "x", "y")
    assert list(tmp_path.iterdir()) == []


def test_the_file_is_on_the_disk_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(
            atomic.os, name, lambda *given, _real=real, _name=name: (calls.append(_name), _real(*given))[1]
        )
    atomic.write_bytes_atomically(tmp_path / "x", b"content")
    assert calls == ["fsync", "replace", "fsync"]  # the file, its name, the folder that holds the name
    assert (tmp_path / "x").read_bytes() == b"content"


def test_a_new_file_has_the_permissions_of_any_new_file(tmp_path: Path) -> None:
    (tmp_path / "ordinary").touch()
    atomic.write_text_atomically(tmp_path / "ours", "")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


def test_nan_is_refused_by_the_json_writer(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        atomic.write_json_atomically(tmp_path / "x", float("nan"))


def test_a_record_comes_back_as_it_was_written(tmp_path: Path) -> None:
    content = {"b": [1, 2.5, None], "a": {"ü": "x", "3": 1e-30}, "inf": float("inf"), "nan": [float("nan")]}
    write_record(tmp_path / "r.json", "thing", 2, content)
    assert read_record(tmp_path / "r.json", "thing", 2) == content | {"inf": "inf", "nan": ["nan"]}
    raw = json.loads((tmp_path / "r.json").read_text())
    assert (raw["format"], raw["format_version"]) == ("jepa-lab thing", 2)


def test_every_flipped_byte_of_a_record_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    write_record(path, "thing", 1, {"cursor": 123, "name": "abc"})
    good = path.read_bytes()
    for position in range(len(good)):
        path.write_bytes(good[:position] + bytes([good[position] ^ 1]) + good[position + 1 :])
        try:
            content = read_record(path, "thing", 1)
        except RunFolderError:
            continue
        assert content == {"cursor": 123, "name": "abc"}, position  # white space only


@pytest.mark.parametrize("damaged", [b"", b"\0" * 50, b'{"format": "jepa', b"[]", b"\xff\xfe"])
def test_a_damaged_record_is_refused_by_name(tmp_path: Path, damaged: bytes) -> None:
    (tmp_path / "r.json").write_bytes(damaged)
    with pytest.raises(RunFolderError, match=r"r\.json"):
        read_record(tmp_path / "r.json", "thing", 1)


def test_a_record_of_another_version_names_both_versions(tmp_path: Path) -> None:
    write_record(tmp_path / "r.json", "thing", 7, {})
    with pytest.raises(RunFolderError, match="format version 7, this jepa-lab reads 1"):
        read_record(tmp_path / "r.json", "thing", 1)
