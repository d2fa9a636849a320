"""Where what is compiled is kept."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from jepa_lab.training.compiling import compiled, kept_in

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def compiler_of_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its folder is set anew, and forgotten after the test."""
    monkeypatch.setenv("JEPA_LAB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "")
    monkeypatch.setattr(torch, "compile", lambda model: model)


def folder_for(device: torch.device = CPU) -> Path | None:
    compiled(nn.Identity(), device)
    return kept_in()


def test_what_is_compiled_is_kept_in_the_cache_of_jepa_lab(tmp_path: Path) -> None:
    found = folder_for(torch.device("cuda"))
    assert found == tmp_path / "cache" / "compiled" / "cuda"
    assert found.is_dir()
    assert os.environ["TORCHINDUCTOR_CACHE_DIR"] == str(found)


def test_a_folder_that_the_user_names_is_left_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "mine"))
    assert folder_for() == tmp_path / "mine"
    assert not (tmp_path / "cache").exists()


def test_the_compilers_own_temporary_folder_is_not_the_users_choice(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(Path(tempfile.gettempdir()) / "torchinductor_somebody"))
    found = folder_for()
    assert found is not None
    assert found.is_relative_to(tmp_path / "cache" / "compiled")


def test_kernels_for_a_cpu_are_kept_apart_by_processor_and_number_of_threads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = []
    for threads, processor in ((1, "a"), (2, "a"), (1, "b"), (1, "a")):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        monkeypatch.setattr("jepa_lab.training.compiling._processor", lambda processor=processor: processor)
        found.append(folder_for())
    assert len(set(found)) == 3
    assert found[0] == found[3]


@pytest.mark.parametrize("block", [Path.touch, lambda folder: folder.mkdir(mode=0o500)], ids=["a file", "read-only"])
def test_a_cache_that_cannot_be_used_is_told_and_stops_nothing(
    block: Callable[[Path], None], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    block(tmp_path / "cache")
    if os.access(tmp_path / "cache", os.W_OK) and (tmp_path / "cache").is_dir():
        pytest.skip("root may write anywhere")
    with caplog.at_level(logging.WARNING):
        assert folder_for() is None
    assert "cannot be kept for later starts" in caplog.text
