"""`jepa-lab sweep` as it is typed: a question without an ablation file, and the file that it stands for."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from jepa_lab.sweeps.folder import SweepFolder
from tests.integration.pipelines import write_tiny
from tests.integration.test_cli import invoke, refused


def test_a_pipeline_with_several_values_is_swept_and_the_file_that_is_written_resumes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_tiny(tmp_path)
    done = invoke("sweep", "tiny.yaml", "loss=l2,smooth_l1", "training.epochs=1", "--seeds", "3", "--slots", "1")
    assert done.exit_code == 0, done.output
    told = re.search(r"ablation: +(\S+); the same sweep is `jepa-lab (.+)`", done.output)
    assert told is not None, done.output
    (folder,) = (tmp_path / "sweeps").iterdir()
    assert (tmp_path / told[1]) == folder / "config.yaml"
    written = (folder / "config.yaml").read_text()
    assert "# It stands for: jepa-lab sweep tiny.yaml loss=l2,smooth_l1 training.epochs=1 --seeds 3\n" in written
    before = sorted((folder / "trials").iterdir())
    assert len(before) == 2
    again = invoke(*shlex.split(told[2]))
    assert again.exit_code == 0, again.output
    assert [folder] == list((tmp_path / "sweeps").iterdir())
    assert sorted((folder / "trials").iterdir()) == before
    assert SweepFolder.open(folder).read_plan()["seeds"] == [3]


def test_what_cannot_be_meant_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_tiny(tmp_path)
    assert "no key has several values to compare" in refused("sweep", "tiny.yaml", "loss=l2")
    assert "--seeds: 4-0 runs backwards" in refused("sweep", "masker", "--seeds", "4-0")
    assert "the arms are 'two blocks', 'one block'" in refused("sweep", "masker", "--arms", "three blocks")
    assert "did you mean 'digits'" in refused("sweep", "masker", "--base", "digitz")
    assert "--base: " in refused("sweep", "masker", "--base", "none.yaml")
    assert "--metric: " in refused("sweep", "masker", "--metric", "probe/test_accuracy")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.yaml"]
