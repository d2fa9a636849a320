"""Locales, folders, streams and file arguments that are not those of the developer's terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click.testing
import pytest

from jepa_lab.cli import main
from jepa_lab.tracking.run_folder import RunFolder
from tests.integration.pipelines import TINY, write_tiny

ASCII = {"LC_ALL": "C", "LANG": None, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": None}
ODD_FOLDER = "a folder \u00e9 \u5b57 'quoted' $HOME;#"
as_user = pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")


def invoke(*arguments: str | Path) -> click.testing.Result:
    return click.testing.CliRunner().invoke(main, [str(argument) for argument in arguments])


def command(
    *arguments: str | Path, cwd: Path, shell: str = "", changes: dict[str, str | None] | None = None, **keywords: Any
) -> subprocess.CompletedProcess[str]:
    """`python -m jepa_lab` as a process.

    Args:
        shell: redirections for bash, behind the command. changes: of the environment; None removes a variable.
    """
    changed = {**os.environ, "OMP_NUM_THREADS": "1", **(changes or {})}
    environment = {key: value for key, value in changed.items() if value is not None}
    words = [sys.executable, "-m", "jepa_lab", *map(str, arguments)]
    whole = ["bash", "-c", f'"$@" {shell}', "bash", *words] if shell else words
    stdin = {} if "input" in keywords else {"stdin": subprocess.DEVNULL}
    defaults = {**stdin, "capture_output": True, "timeout": 240}
    return subprocess.run(
        whole,
        check=False,
        cwd=cwd,
        env=environment,
        encoding="utf-8",
        errors="backslashreplace",
        **{**defaults, **keywords},
    )


def assert_clean(done: subprocess.CompletedProcess[str], code: int) -> str:
    """The exit code, and neither a traceback nor what the interpreter says when it cannot flush."""
    output = (done.stdout or "") + (done.stderr or "")
    assert done.returncode == code, output
    for word in ("Traceback", "Exception ignored", "UnicodeEncodeError"):
        assert word not in output, output
    return output


def one_run(root: Path) -> dict[str, Any]:
    """The result of the only run in a root, whose folder is whole."""
    (path,) = (path for path in root.iterdir() if not path.name.startswith("."))
    result = RunFolder.open(path).read_result()
    assert result is not None
    return result


def test_messages_with_any_letters_fit_into_an_ascii_terminal(tmp_path: Path) -> None:
    folder = tmp_path / ODD_FOLDER
    folder.mkdir()
    file = write_tiny(folder, TINY + "m\u00e4sker: 1\n")
    output = assert_clean(command("check", file, cwd=tmp_path, changes=ASCII), 2)
    assert "unknown key m" in output
    assert "did you mean 'masker'" in output


def test_a_full_disk_behind_the_output_is_exit_code_3(tmp_path: Path) -> None:
    output = assert_clean(command("list", "loss", cwd=tmp_path, shell=">/dev/full"), 3)
    assert "error: the output is incomplete (No space left on device); free space there" in output


@pytest.mark.slow
def test_a_full_disk_behind_the_output_decides_nothing_about_a_sweep_or_a_probe(tmp_path: Path) -> None:
    write_tiny(tmp_path)
    (tmp_path / "ablation.yaml").write_text("name: full\nbase: tiny.yaml\nbaseline: a\narms: {a: {}}\nseeds: [0]\n")
    shell = ">/dev/full"
    assert_clean(command("sweep", "ablation.yaml", "training.epochs=1", "--slots", "1", cwd=tmp_path, shell=shell), 0)
    (sweep,) = (tmp_path / "sweeps").iterdir()
    result = RunFolder.open(sweep).read_result()
    assert result is not None
    assert result["status"] == "FINISHED"
    (trial,) = (sweep / "trials").iterdir()
    assert_clean(command("probe", trial, cwd=tmp_path, shell=shell), 0)
    assert (trial / "probes" / "1.json").exists()
    assert_clean(command("sweep", "ablation.yaml", "training.epochs=1", "--dry-run", cwd=tmp_path, shell=shell), 3)


def test_a_reader_that_leaves_early_ends_a_command_quietly(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = command("schema", cwd=tmp_path, capture_output=False, stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)
    assert assert_clean(done, 141) == ""


def test_a_pipeline_comes_through_a_pipe(tmp_path: Path) -> None:
    text = TINY.replace("epochs: 3", "epochs: many")
    done = command("check", "/dev/stdin", cwd=tmp_path, input=text)
    assert "/dev/stdin:10: training.epochs must be an integer" in assert_clean(done, 2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "shell"),
    [
        (ASCII, ""),
        ({"HOME": None}, ""),
        ({"HOME": "/nonexistent"}, ""),
        ({"TMPDIR": "/nonexistent"}, ""),
        ({"COLUMNS": "10"}, ""),
        ({"TERM": "dumb", "NO_COLOR": "1"}, ""),
        ({}, "<&-"),
        ({}, ">&-"),
        ({}, "2>&-"),
        ({}, "2>/dev/full"),
    ],
    ids=str,
)
def test_a_run_finishes_in_odd_surroundings(tmp_path: Path, changes: dict[str, str | None], shell: str) -> None:
    folder = tmp_path / ODD_FOLDER
    folder.mkdir()
    arguments = ("run", write_tiny(folder), "training.epochs=1", "--runs", folder / "my runs")
    assert_clean(command(*arguments, cwd=folder, changes=changes, shell=shell), 0)
    assert one_run(folder / "my runs")["status"] == "FINISHED"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("shell", "words"),
    [
        ("| head -1", ""),
        (">/dev/full", "cannot be written (No space left on device); continuing without it"),
        (">/dev/full 2>&1", ""),
        ("| true; exit ${PIPESTATUS[0]}", ""),
    ],
)
def test_a_run_finishes_whoever_reads_its_output(tmp_path: Path, shell: str, words: str) -> None:
    arguments = ("run", write_tiny(tmp_path), "training.epochs=1", "--runs", tmp_path / "runs")
    assert words in assert_clean(command(*arguments, cwd=tmp_path, shell=shell), 0)
    assert one_run(tmp_path / "runs")["status"] == "FINISHED"


@pytest.mark.slow
def test_a_run_with_its_mlflow_copy_lives_in_an_odd_folder(tmp_path: Path) -> None:
    folder = tmp_path / ODD_FOLDER
    folder.mkdir()
    arguments = ("run", write_tiny(folder), "training.epochs=1", "tracking=mlflow", "--runs", "my runs")
    output = assert_clean(command(*arguments, cwd=folder), 0)
    assert (folder / "mlflow.db").exists(), output
    (run,) = (folder / "my runs").iterdir()
    assert "has everything" in assert_clean(command("sync", run, cwd=folder), 0)
    assert "already finished" in assert_clean(command("run", "--resume", run, cwd=tmp_path), 0)


HOMELESS = """
import os, pwd

def unknown(user):
    raise KeyError(user)

pwd.getpwuid = unknown
os.environ.pop("HOME", None)
from jepa_lab.tracking.mlflow_store import quiet_mlflow
quiet_mlflow()
"""


@pytest.mark.slow
def test_mlflow_is_used_by_a_user_whom_the_system_does_not_know(tmp_path: Path) -> None:
    """As in containers that run under any number; MLflow's own import would fail."""
    done = subprocess.run(
        [sys.executable, "-c", HOMELESS], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stderr


def test_files_of_a_run_are_private_under_a_private_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        assert invoke("run", write_tiny(tmp_path), "training.epochs=1", "--runs", tmp_path / "runs").exit_code == 0
    finally:
        os.umask(before)
    made = list((tmp_path / "runs").rglob("*"))
    assert made
    assert [path for path in made if path.stat().st_mode & 0o077] == []


def test_a_run_root_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "runs").symlink_to(tmp_path / "real")
    assert invoke("run", write_tiny(tmp_path), "training.epochs=1", "--runs", tmp_path / "runs").exit_code == 0
    assert one_run(tmp_path / "real")["status"] == "FINISHED"


@as_user
def test_a_run_root_that_may_not_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir(mode=0o555)
    result = invoke("run", write_tiny(tmp_path), "--runs", tmp_path / "runs")
    assert result.exit_code == 2
    assert "cannot write" in result.output


@as_user
def test_a_pipeline_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    file = write_tiny(tmp_path)
    file.chmod(0)
    result = invoke("check", file)
    assert result.exit_code == 2
    assert "Permission denied" in result.output


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        (".", ["is a folder"]),
        ("/dev/null", ["an empty file"]),
        ("nowhere.yaml", ["no such file"]),
        ("-", ["no such file", "/dev/stdin"]),
        ("tiny.yaml/x", ["Not a directory"]),
        ("x" * 300, ["File name too long"]),
        ("", ["is a folder"]),
    ],
)
def test_what_is_no_file_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, argument: str, words: list[str]
) -> None:
    write_tiny(tmp_path)
    monkeypatch.chdir(tmp_path)
    for name in ("check", "run"):
        result = invoke(name, argument)
        assert result.exit_code == 2, result.output
        for word in words:
            assert word in result.output
    assert not (tmp_path / "runs").exists()


def test_a_current_folder_that_was_removed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's libraries would end the process with a message about themselves."""
    file = write_tiny(tmp_path)
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    result = invoke("check", file)
    assert result.exit_code == 2
    assert result.output.startswith("error: the current folder no longer exists; change to another one"), result.output


def test_the_name_of_a_pipeline_file_does_not_matter(tmp_path: Path) -> None:
    file = write_tiny(tmp_path).rename(tmp_path / "tiny.json")
    assert invoke("check", file).exit_code == 0


def test_a_named_pipe_is_read_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with subprocess.Popen([sys.executable, "-c", f"open({str(pipe)!r}, 'w').write({TINY!r})"]):
        assert invoke("check", pipe).exit_code == 0
