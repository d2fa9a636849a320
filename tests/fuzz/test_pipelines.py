"""Whatever a pipeline file and overrides hold: success, or one message that names the place."""

from __future__ import annotations

import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click.testing
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from jepa_lab.cli import main
from jepa_lab.config.loading import load_pipeline
from jepa_lab.errors import RunStopped
from jepa_lab.tracking.run_folder import RunFolder
from jepa_lab.training.pretrain import Pretraining
from tests.fuzz.strategies import ROOT, as_yaml, changed_trees, file_contents, mutated_texts, overrides

SECONDS_PER_CASE = 60
STOP = "stopped before the first step"


FAST = settings(
    derandomize=True, deadline=None, database=None, phases=(Phase.explicit, Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
"""The same cases every time."""

ANEW = settings(FAST, derandomize=False, print_blob=True)
"""Other cases every time; hypothesis prints how to repeat one that fails."""


@contextmanager
def bounded() -> Iterator[None]:
    """No case may hang."""

    def hang(*_: object) -> None:
        raise AssertionError(f"still at work after {SECONDS_PER_CASE} s")

    before = signal.signal(signal.SIGALRM, hang)
    signal.alarm(SECONDS_PER_CASE)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def invoke(*arguments: str) -> click.testing.Result:
    with bounded():
        return click.testing.CliRunner().invoke(main, list(arguments))


def assert_refusal_or_success(code: int, output: str, file: Path) -> None:
    """Exit code 0, or 2 with one message that begins with a place."""
    assert code in (0, 2), (code, output[-3000:])
    assert "Traceback" not in output
    if code == 2 and "Usage:" not in output:
        assert output.count("error: ") == 1 or output.startswith("error: "), output
        message = output[output.index("error: ") + len("error: ") :]
        places = (f"{file}:", "override '", 'override "', "preset ", "run root", "--")
        assert message.startswith(places), message
        assert len(message) < 20_000, len(message)


def check_text(content: bytes, given_overrides: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "pipeline.yaml"
        file.write_bytes(content)
        result = invoke("check", str(file), "--", *given_overrides)
        assert_refusal_or_success(result.exit_code, result.output, file)
        assert list(Path(folder).iterdir()) == [file]


@settings(FAST, max_examples=160)
@given(mutated_texts())
def test_slips_in_a_file_are_refused_with_their_line(text: str) -> None:
    check_text(text.encode("utf-8", "surrogatepass"), [])


@settings(FAST, max_examples=80)
@given(changed_trees())
def test_components_with_drawn_parameters_are_accepted_or_refused_with_their_line(tree: dict[str, Any]) -> None:
    check_text(as_yaml(tree).encode(), [])


@settings(FAST, max_examples=90)
@given(overrides, st.sampled_from(("digits", "cifar10_best")))
def test_overrides_of_every_shape_are_accepted_or_refused_by_name(given_overrides: list[str], stem: str) -> None:
    file = ROOT / "pipelines" / f"{stem}.yaml"
    result = invoke("check", str(file), "--", *given_overrides)
    assert_refusal_or_success(result.exit_code, result.output, file)


@settings(FAST, max_examples=40)
@given(file_contents())
def test_files_that_are_no_pipelines_are_refused(content: bytes) -> None:
    check_text(content, [])


@pytest.fixture(scope="module")
def stopping() -> Iterator[None]:
    """Runs that end where the first step would be."""

    def stop(self: Pretraining) -> None:
        raise RunStopped(STOP)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Pretraining, "run", stop)
        yield


def run_until_training(tree: dict[str, Any], given_overrides: list[str]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = folder / "pipeline.yaml"
        file.write_text(as_yaml(tree), encoding="utf-8")
        # No files to find or to download, no other process, nothing large to fill.
        safe = [
            "encoder.size={name: custom, embed_dim: 24, depth: 2, num_heads: 2}",
            "data.root=null",
            "data.max_images=40",
            "data.image_size=16",
            "encoder.patch_size=2",
            "tracking=none",
            "probe.data=null",
        ]
        result = invoke("run", str(file), "--runs", str(folder / "runs"), "--", *safe, *given_overrides)
        if STOP in result.output:
            assert result.exit_code == 3, result.output
            (run,) = (folder / "runs").iterdir()
            whole = RunFolder.open(run)
            load_pipeline(whole.config)
            assert whole.read_description().params
            ended = whole.read_result()
            assert ended is not None
            assert ended["status"] == "FAILED"
        else:
            assert_refusal_or_success(result.exit_code, result.output, file)
            assert not (folder / "runs").exists() or not list((folder / "runs").iterdir())
        assert {path.name for path in folder.iterdir()} <= {"pipeline.yaml", "runs"}


needs_no_files = st.sampled_from(("data.dataset=digits", "data.dataset={name: synthetic, num_train: 80, num_test: 20}"))


@settings(FAST, max_examples=20)
@given(tree=changed_trees(), dataset=needs_no_files)
def test_a_run_makes_a_whole_folder_or_none(stopping: None, tree: dict[str, Any], dataset: str) -> None:
    run_until_training(tree, [dataset, "training.batch_size=8"])


def in_a_process(arguments: list[str], cwd: Path) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "jepa_lab", *arguments], cwd=cwd, capture_output=True, check=False, timeout=120,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return done.returncode, (done.stdout + done.stderr).decode("utf-8", "replace")


def check_in_a_process(content: bytes, given_overrides: list[str], folder: Path) -> None:
    file = folder / "pipeline.yaml"
    file.write_bytes(content)
    usable = [each.replace("\0", "") for each in given_overrides if len(each) < 100_000]
    code, output = in_a_process(["check", str(file), "--", *usable], folder)
    assert_refusal_or_success(code, output, file)
    assert list(folder.iterdir()) == [file]


@settings(FAST, max_examples=3)
@given(mutated_texts(), overrides)
def test_a_process_answers_as_the_functions_do(text: str, given_overrides: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        check_in_a_process(text.encode("utf-8", "surrogatepass"), given_overrides, Path(folder))


@pytest.mark.slow
@settings(ANEW, max_examples=20)
@given(mutated_texts() | changed_trees().map(as_yaml), overrides)
def test_a_process_answers_cases_drawn_anew(text: str, given_overrides: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        check_in_a_process(text.encode("utf-8", "surrogatepass"), given_overrides, Path(folder))


@pytest.mark.slow
@settings(ANEW, max_examples=3000)
@given(mutated_texts() | changed_trees().map(as_yaml), st.just([]) | overrides)
def test_files_and_overrides_drawn_anew(text: str, given_overrides: list[str]) -> None:
    check_text(text.encode("utf-8", "surrogatepass"), given_overrides)


@pytest.mark.slow
@settings(ANEW, max_examples=500)
@given(tree=changed_trees(), dataset=needs_no_files)
def test_runs_of_pipelines_drawn_anew(stopping: None, tree: dict[str, Any], dataset: str) -> None:
    run_until_training(tree, [dataset, "training.batch_size=8"])
