"""Tensor files: read by the safetensors library, and the same bytes for the same content in every process."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from jepa_lab.errors import RunFolderError
from jepa_lab.training.tensor_file import read_tensors, write_tensors

METADATA = {name: f'"{name}" \\ Größe\n' for name in ("format", "version", "mean", "std", "a", "b", "c", "d")}
WRITE = """
import sys, torch
from pathlib import Path
from jepa_lab.training.tensor_file import write_tensors
tensors = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.zeros(3, dtype=torch.bfloat16)}
print(write_tensors(Path(sys.argv[1]), tensors, {"format": "jepa-lab tensors", "format_version": "2"}))
"""


def tensors() -> dict[str, torch.Tensor]:
    return {
        "zeta": torch.arange(7, dtype=torch.uint8),
        "alpha/é": torch.randn(3, 4, generator=torch.Generator().manual_seed(0)),
        "half": torch.ones(2, 2, dtype=torch.bfloat16),
        "scalar": torch.tensor(2.5),
    }


def sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_equal_tensors_and_metadata_make_equal_files_however_they_are_ordered(tmp_path: Path) -> None:
    backwards = dict(reversed(METADATA.items())), dict(reversed(tensors().items()))
    digests = {write_tensors(tmp_path / f"{n}", tensors(), METADATA) for n in range(6)}
    digests |= {write_tensors(tmp_path / f"{n} backwards", backwards[1], backwards[0]) for n in range(6)}
    assert digests == {sha256(file) for file in tmp_path.iterdir()}
    assert len(digests) == 1


@pytest.mark.slow
def test_twelve_fresh_processes_write_one_file(tmp_path: Path) -> None:
    for n in range(12):
        subprocess.run([sys.executable, "-c", WRITE, str(tmp_path / str(n))], check=True, capture_output=True)
    assert len({sha256(file) for file in tmp_path.iterdir()}) == 1


def test_the_safetensors_library_reads_tensors_and_metadata(tmp_path: Path) -> None:
    file = tmp_path / "tensors"
    write_tensors(file, tensors(), METADATA)
    loaded = load_file(file)
    assert loaded.keys() == tensors().keys()
    for name, tensor in tensors().items():
        assert loaded[name].dtype == tensor.dtype
        assert torch.equal(loaded[name], tensor)
    with safe_open(file, "pt") as opened:
        assert opened.metadata() == METADATA


def test_a_file_that_the_library_wrote_is_read(tmp_path: Path) -> None:
    for metadata in (METADATA, None):
        save_file(tensors(), tmp_path / "tensors", metadata)
        read, found = read_tensors(tmp_path / "tensors", sha256(tmp_path / "tensors"))
        assert all(torch.equal(read[name], tensor) for name, tensor in tensors().items())
        assert found == (metadata or {})


def test_metadata_changes_no_byte_of_the_tensors(tmp_path: Path) -> None:
    save_file(tensors(), tmp_path / "library", METADATA)
    write_tensors(tmp_path / "ours", tensors(), METADATA)
    library, ours = (tmp_path / "library").read_bytes(), (tmp_path / "ours").read_bytes()
    start = 8 + int.from_bytes(library[:8], "little")
    assert ours[:8] == library[:8]
    assert ours[start:] == library[start:]


def test_a_file_of_another_digest_is_refused(tmp_path: Path) -> None:
    write_tensors(tmp_path / "tensors", tensors(), METADATA)
    with pytest.raises(RunFolderError, match="SHA-256"):
        read_tensors(tmp_path / "tensors", "0" * 64)
