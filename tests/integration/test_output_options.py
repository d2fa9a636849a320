"""`--json`, `--quiet`, examples in every help, and completion: the same in every command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.shell_completion import ShellComplete

from jepa_lab.cli import main
from jepa_lab.commands.completion import _Bash, _Zsh, known_keys
from jepa_lab.config.key_list import key_list
from jepa_lab.config.pipeline import Pipeline
from tests.integration.pipelines import write_tiny
from tests.integration.test_cli import invoke

WITHOUT_RESULT = {"ui", "dashboard", "schema"}
"""They serve pages, or print in forms of their own."""
SHORT = ("training.epochs=1", "probe.method.c_grid=[0.1]", "probe.additional=[]", "monitors.end=[]")

every_command = pytest.mark.parametrize("name", sorted(main.commands))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A folder of runs with the run that `run --json` made, and what it printed."""
    folder = tmp_path_factory.mktemp("options")
    result = invoke("run", write_tiny(folder), *SHORT, "--runs", folder / "runs", "--json")
    assert result.exit_code == 0, result.output
    assert "probing trained encoder" in result.stderr
    return folder / "runs", json.loads(result.stdout)


@every_command
def test_every_help_has_examples_that_can_be_parsed(name: str) -> None:
    command = main.commands[name]
    text = invoke(name, "--help").output
    assert "Examples:" in text
    lines = [line.strip() for line in text.split("Examples:")[1].splitlines() if line.strip().startswith("jepa-lab")]
    assert lines
    for line in lines:
        words = line.split(" | ")[0].split(" > ")[0].replace("'", "").split()
        assert words[:2] == ["jepa-lab", name]
        context = command.make_context(name, [word.strip("[],") for word in words[2:]], resilient_parsing=True)
        assert isinstance(context, click.Context)


@every_command
def test_every_help_fits_80_columns_and_explains_every_option(name: str) -> None:
    assert all(len(line) <= 80 for line in invoke(name, "--help").output.splitlines())
    options = [each for each in main.commands[name].params if isinstance(each, click.Option)]
    assert all(each.help for each in options)


@every_command
def test_every_command_with_a_result_prints_it_as_json_and_quietly(name: str) -> None:
    options = {option for parameter in main.commands[name].params for option in parameter.opts}
    assert name in WITHOUT_RESULT or {"--json", "--quiet"} <= options


def test_a_run_as_json_is_one_document_and_progress_goes_to_the_standard_error(made: tuple[Path, Any]) -> None:
    runs, document = made
    assert document["result"]["status"] == "FINISHED"
    assert document["state"] == "finished"
    assert Path(document["folder"]).parent == runs


def test_a_quiet_list_is_the_names(made: tuple[Path, Any]) -> None:
    assert invoke("list", "ema_momentum", "--quiet").stdout == "constant\ncosine\nlinear\n"
    assert "ema_momentum cosine" in invoke("list", "--quiet").stdout.splitlines()


def test_a_quiet_run_prints_its_folder_alone(tmp_path: Path) -> None:
    result = invoke("run", write_tiny(tmp_path), *SHORT, "--runs", tmp_path / "runs", "--quiet")
    (path,) = (tmp_path / "runs").iterdir()
    assert result.stdout == f"{path}\n"


def test_results_are_given_as_json_and_as_what_to_go_on_with(made: tuple[Path, Any], tmp_path: Path) -> None:
    runs, document = made
    name, file = document["name"], write_tiny(tmp_path)
    assert [line["name"] for line in json.loads(invoke("ls", "--runs", runs, "--json").stdout)] == [name]
    assert invoke("ls", "--runs", runs, "--quiet").stdout == f"{name}\n"
    assert invoke("show", name, "--runs", runs, "-q").stdout == "finished\n"
    assert json.loads(invoke("show", name, "--runs", runs, "--json").stdout)["folder"] == document["folder"]
    checked = json.loads(invoke("check", file, "--json").stdout)
    assert checked["sizes"]["total_steps"] == 15
    assert checked["pipeline"]["masker"]["name"] == "multi_block"
    assert invoke("check", file, "--quiet").stdout == ""
    png = tmp_path / "masks.png"
    assert json.loads(invoke("masks", file, "--out", png, "--json").stdout) == {"file": str(png)}
    probed = json.loads(invoke("probe", name, "--runs", runs, "probe.method.c_grid=[1.0]", "--json").stdout)
    assert Path(probed["file"]).is_file()
    assert "trained" in probed["probe"]


def test_a_bad_option_is_told_in_words_also_with_json(tmp_path: Path) -> None:
    result = invoke("check", write_tiny(tmp_path), "maskers=random", "--json")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "did you mean 'masker'" in result.stderr


def completions(*words: str, incomplete: str) -> list[str]:
    """What is completed after `jepa-lab WORDS`, by click's own machinery."""
    found = ShellComplete(main, {}, "jepa-lab", "_JEPA_LAB_COMPLETE").get_completions(list(words), incomplete)
    return [str(item.value) for item in found]


@pytest.mark.parametrize("command", [["run", "digits"], ["check", "digits"], ["masks", "digits"], ["probe", "a_run"]])
def test_keys_are_completed_level_by_level(command: list[str]) -> None:
    assert {"encoder.", "masker=", "masker."} <= set(completions(*command, incomplete=""))
    assert completions(*command, incomplete="mask") == ["masker=", "masker."]
    assert "masker.num_targets=" in completions(*command, incomplete="masker.")
    assert "encoder.size." in completions(*command, incomplete="encoder.si")


def test_values_are_completed_where_they_can_be_listed() -> None:
    assert completions("run", "digits", incomplete="masker=mu") == ["masker=multi_block", "masker=multi_context"]
    assert completions("run", "digits", incomplete="probe.score_test=") == [
        "probe.score_test=true",
        "probe.score_test=false",
    ]
    assert completions("run", "digits", incomplete="training.epochs=") == []
    assert completions("run", "digits", incomplete="no.such_key=") == []


def test_parameters_are_those_of_the_component_that_was_chosen() -> None:
    every = completions("run", "digits", incomplete="masker.")
    of_random = completions("run", "digits", "masker=random", incomplete="masker.")
    assert "masker.num_targets=" in every
    assert "masker.num_targets=" not in of_random
    assert set(of_random) < set(every)


def test_names_of_pipelines_ablations_and_runs_are_completed(
    made: tuple[Path, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs, document = made
    monkeypatch.chdir(runs.parent)
    assert "digits" in completions("run", incomplete="di")
    assert "predictor_size" in completions("sweep", incomplete="pred")
    assert "digits" in completions("sweep", incomplete="di")
    assert "digits" in completions("sweep", "masker", "--base", incomplete="di")
    assert "digits" in completions("probe", "--encoder", "somewhere", incomplete="di")
    for command in ("features", "register", "probe"):
        assert document["name"] in completions(command, incomplete="ti")
    assert document["name"] in completions("show", incomplete="ti")
    assert document["name"] in completions("show", "--runs", str(runs), incomplete="")
    assert "training." in completions("run", "--from", document["name"], incomplete="train")


def test_bash_which_splits_words_at_equals_signs_gets_the_value_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(words: list[str]) -> tuple[tuple[list[str], str], str]:
        monkeypatch.setenv("COMP_WORDS", " ".join(words))
        monkeypatch.setenv("COMP_CWORD", str(len(words) - 1))
        shell = _Bash(main, {}, "jepa-lab", "_JEPA_LAB_COMPLETE")
        return shell.get_completion_args(), shell.complete()

    (words, incomplete), text = asked(["jepa-lab", "run", "digits", "masker", "=", "mu"])
    assert (words, incomplete) == (["run", "digits"], "masker=mu")
    assert text == "plain,multi_block\nplain,multi_context"
    (words, incomplete), text = asked(["jepa-lab", "run", "digits", "masker", "="])
    assert (words, incomplete) == (["run", "digits"], "masker=")
    assert "plain,random" in text.splitlines()
    (words, _), text = asked(["jepa-lab", "run", "digits", "masker", "=", "random", "masker."])
    assert words == ["run", "digits", "masker=random"]
    assert "plain,masker.num_targets=" not in text.splitlines()


def test_no_blank_follows_a_key() -> None:
    assert "nospace" in _Bash.source_template
    assert 'compadd -U -S ""' in _Zsh.source_template


def test_the_list_of_keys_is_that_of_the_schema() -> None:
    content = json.dumps(key_list(Pipeline.model_json_schema()), indent=0)
    assert {key: [list(each.choices), list(each.components)] for key, each in known_keys().items()} == {
        key: [each["choices"], each["components"]] for key, each in json.loads(content).items()
    }, "write it again with `make schema`"


def test_completion_imports_neither_torch_nor_pydantic() -> None:
    code = (
        "import sys\n"
        "from jepa_lab.cli import main\n"
        "try: main(prog_name='jepa-lab')\n"
        "except SystemExit: pass\n"
        "print([name for name in ('torch', 'pydantic', 'mlflow', 'matplotlib') if name in sys.modules])\n"
    )
    asked = {"_JEPA_LAB_COMPLETE": "zsh_complete", "COMP_WORDS": "jepa-lab run digits masker=ra", "COMP_CWORD": "3"}
    done = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **asked}, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"
    assert "masker=random" in done.stdout
