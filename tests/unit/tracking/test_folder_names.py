"""A run is found by its name under the runs root as well as by its path."""

from __future__ import annotations

from pathlib import Path

import pytest

from jepa_lab.errors import RunFolderError
from jepa_lab.tracking.folder_names import find_folder, named_folder


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("digits-01234567-s0", "digits-01234567-s1", "a%20b"):
        write_run(tmp_path / "runs" / name)
    monkeypatch.chdir(tmp_path)
    return Path("runs")


def write_run(folder: Path) -> Path:
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").touch()
    (folder / "run.json").touch()
    return folder


@pytest.mark.parametrize("name", ["digits-01234567-s0", "a%20b"])
def test_a_name_is_looked_for_under_the_root_and_a_path_is_not(runs: Path, name: str) -> None:
    assert find_folder(Path(name), [runs]) == runs / name
    assert find_folder(runs / name, [runs]) == runs / name
    assert find_folder((runs / name).absolute(), [runs]) == (runs / name).absolute()
    with pytest.raises(RunFolderError, match="there is no run folder x/"):
        find_folder(Path("x") / name, [runs])


def test_the_roots_are_tried_in_their_order(runs: Path) -> None:
    in_sweeps = write_run(Path("sweeps") / "loss-0123")
    assert find_folder(Path("loss-0123"), [runs, Path("sweeps")]) == in_sweeps


def test_a_run_of_this_path_comes_before_one_of_this_name(runs: Path) -> None:
    here = write_run(Path("a%20b"))
    assert find_folder(Path("a%20b"), [runs]) == here


def test_a_folder_that_is_no_run_does_not_hide_the_run_of_its_name(runs: Path) -> None:
    Path("a%20b").mkdir()
    assert find_folder(Path("a%20b"), [runs]) == runs / "a%20b"


def test_a_folder_that_is_no_run_is_returned_where_there_is_no_other(runs: Path) -> None:
    """Whoever opens it says what is missing."""
    assert find_folder(runs, [runs]) == runs


def test_no_name_leaves_the_root(runs: Path) -> None:
    write_run(Path("inside"))
    for name in ("..", "../inside", "."):
        assert named_folder(name, [runs]) is None
    Path("config.yaml").touch()
    assert find_folder(Path(".."), [runs]) == Path("..")


def test_a_name_that_is_not_there_is_refused_with_the_nearest(runs: Path) -> None:
    with pytest.raises(RunFolderError, match="did you mean 'digits-01234567-s0' or 'digits-01234567-s1'"):
        find_folder(Path("digits"), [runs])
    with pytest.raises(RunFolderError, match=r"nor one of that name under runs .did you mean 'digits-01234567-s0'"):
        find_folder(Path("digit-01234567-s0"), [runs])
    with pytest.raises(RunFolderError, match=r"nor one of that name under nowhere; give the run's name"):
        find_folder(Path("digits"), [Path("nowhere")])


def test_a_file_is_said_to_be_one(runs: Path) -> None:
    Path("tiny.yaml").touch()
    with pytest.raises(RunFolderError, match=r"tiny\.yaml is a file"):
        find_folder(Path("tiny.yaml"), [runs])


def test_a_name_is_that_of_a_record_only_where_there_is_one(runs: Path) -> None:
    (runs / "jepa-lab").mkdir()
    assert named_folder("jepa-lab", [runs]) is None
    assert named_folder("a%20b", [Path("nowhere"), runs]) == runs / "a%20b"
    assert named_folder("runs/a%20b", [runs]) is None
