"""The pipelines and ablations that come with jepa-lab are found by their names, from any folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from jepa_lab.config.loading import load_pipeline
from jepa_lab.config.shipped import find_either, find_file, shipped_files
from jepa_lab.errors import ConfigError
from jepa_lab.sweeps.plan import load_plan

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_all_files_at_the_top_come_with_the_package() -> None:
    for kind in ("pipeline", "ablation"):
        names = {file.stem for file in (ROOT / f"{kind}s").glob("*.yaml")}
        assert set(shipped_files(kind)) == names  # type: ignore[arg-type]
    assert "digits" in shipped_files("pipeline")


def test_a_bare_name_is_the_one_that_comes_with_the_package() -> None:
    file, note = find_file(Path("digits"), "pipeline")
    assert load_pipeline(file).pipeline.name == "digits"
    assert note == "using the pipeline digits that comes with jepa-lab"


def test_the_base_of_an_ablation_is_found_beside_it_in_an_installed_package(tmp_path: Path) -> None:
    for folder in ("pipelines", "ablations"):
        shutil.copytree(ROOT / folder, tmp_path / "site-packages" / "shipped" / folder)
    own = {arm.name for arm in load_plan(find_file(Path("loss"), "ablation")[0]).arms}
    assert {arm.name for arm in load_plan(tmp_path / "site-packages/shipped/ablations/loss.yaml").arms} == own


@pytest.mark.parametrize("place", ["digits.yaml", "pipelines/digits.yaml"])
def test_a_file_of_the_working_folder_wins_and_is_said(tmp_path: Path, place: str) -> None:
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text("name: mine\n")
    (tmp_path / "digits").mkdir()  # a folder is no pipeline
    file, note = find_file(Path("digits"), "pipeline")
    assert file == Path(place)
    assert note == f"using {place} of this folder, not the pipeline digits that comes with jepa-lab"


def test_in_a_checkout_nothing_is_said_to_be_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert find_file(Path("digits"), "pipeline") == (
        Path("pipelines/digits.yaml"),
        "using pipelines/digits.yaml of this folder",
    )


def test_a_path_is_taken_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("name: mine\n")
    assert find_file(Path("mine.yaml"), "pipeline") == (Path("mine.yaml"), None)
    assert find_file(tmp_path / "mine.yaml", "pipeline") == (tmp_path / "mine.yaml", None)
    (tmp_path / "folder").mkdir()
    for given in ("folder", "-", "/dev/stdin", "x" * 300 + "/y.yaml"):  # the last is longer than a name may be
        assert find_file(Path(given), "pipeline") == (Path(given), None)
    assert find_file(Path("missing/other.yaml"), "pipeline") == (Path("missing/other.yaml"), None)


def test_what_is_not_there_is_told_with_what_is() -> None:
    with pytest.raises(ConfigError, match=r"digitz: no such file, and no pipeline .*; did you mean 'digits'"):
        find_file(Path("digitz"), "pipeline")
    with pytest.raises(ConfigError, match="`digits`, without folder and suffix, is the pipeline of jepa-lab"):
        find_file(Path("pipelines/digits.yaml"), "pipeline")


def test_a_name_is_taken_for_the_first_kind_that_has_it(tmp_path: Path) -> None:
    kinds = ("ablation", "pipeline")
    assert find_either(Path("masker"), kinds)[1] == "using the ablation masker that comes with jepa-lab"
    assert find_either(Path("digits"), kinds)[1] == "using the pipeline digits that comes with jepa-lab"
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines" / "masker.yaml").write_text("name: mine\n")
    assert find_either(Path("masker"), kinds)[0] == Path("pipelines/masker.yaml")
    with pytest.raises(ConfigError, match="no such file, and no ablation of this name"):
        find_either(Path("nothing_like_it"), kinds)
