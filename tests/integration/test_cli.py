"""The command line: exit codes, one message, no traceback; and what each command prints."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import click.testing
import jsonschema
import pytest
import torch

import jepa_lab.composition.work as work_module
from jepa_lab.cli import main
from jepa_lab.config.documents import plain_document
from jepa_lab.runs.predictions import read_predictions
from tests.integration.pipelines import TINY, write_tiny

ROOT = Path(__file__).parents[2]


def invoke(*arguments: str | Path) -> click.testing.Result:
    return click.testing.CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run folder made by the command line."""
    folder = tmp_path_factory.mktemp("cli")
    result = invoke("run", write_tiny(folder), "--runs", folder / "runs")
    assert result.exit_code == 0, result.output
    for text in ("this run", "control: random encoder", "control: raw pixels", "RankMe", "images/s", "run folder"):
        assert text in result.output
    (path,) = (folder / "runs").iterdir()
    return path


def refused(*arguments: str | Path, code: int = 2) -> str:
    """The message of a command that must fail with one message and no traceback."""
    result = invoke(*arguments)
    assert result.exit_code == code, (result.output, result.exception)
    assert "Traceback" not in result.output
    assert result.output.count("error:") == 1
    return result.output


def test_bad_input_ends_with_exit_code_2_and_one_message(tmp_path: Path) -> None:
    file = write_tiny(tmp_path)
    assert "no such file" in refused("run", tmp_path / "none.yaml")
    assert "needs a pipeline FILE" in refused("run")
    assert "did you mean 'masker'" in refused("run", file, "maskers=random")
    assert "key=value" in refused("check", file, "epochs")
    assert "training.device='cuda:9'" in refused("run", file, "training.device=cuda:9", "--runs", tmp_path / "runs")
    assert "must be auto" in refused("run", file, "training.device=tpu", "--runs", tmp_path / "runs")
    assert "not a run folder" in refused("run", "--resume", tmp_path)
    assert "no run folder" in refused("run", "--resume", tmp_path / "nowhere")
    assert "unknown family" in refused("list", "maskerz")
    assert not (tmp_path / "runs").exists()


def test_a_run_is_named_wherever_a_run_folder_is_taken(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(finished.parent.parent)
    name = finished.name
    results = (
        invoke("run", "--resume", name),
        invoke("probe", name, "probe.encoder=context"),
        invoke("attention", name, "--out", "attention.png"),
        invoke("report", name),
    )
    for result in results:
        assert result.exit_code == 0, result.output
    assert "tracking: none" in refused("sync", name)  # found, and has no record
    monkeypatch.chdir("/")
    assert invoke("probe", name, "probe.encoder=context", "--runs", finished.parent).exit_code == 0
    for command in ("probe", "sync"):
        assert f"did you mean '{name}'?" in refused(command, "tiny", "--runs", finished.parent)
    assert f"did you mean '{name}'?" in refused("run", "--resume", "tiny", "--runs", finished.parent)


def test_missing_data_says_which_files_to_put_where_and_which_pipeline_needs_none(tmp_path: Path) -> None:
    dataset = "data.dataset={name: cifar10, download: false}"
    message = refused(
        "run", write_tiny(tmp_path), dataset, f"data.root={tmp_path / 'nothing'}", "--runs", tmp_path / "r"
    )
    assert str(tmp_path / "nothing") in message
    assert "digits" in message


def test_a_stopped_run_is_exit_code_3_and_a_crash_exit_code_1_with_its_traceback_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_tiny(tmp_path)
    hot = ("optimizer.learning_rate=1e30", "loss=l2", "--runs", tmp_path / "hot")
    assert "not finite" in refused("run", file, *hot, code=3)

    def crash(*arguments: object, **keywords: object) -> None:
        raise ZeroDivisionError("a mistake of our own")

    monkeypatch.setattr(work_module, "final_evaluation", crash)
    result = invoke("run", file, "--runs", tmp_path / "crash")
    assert result.exit_code == 1
    (folder,) = (tmp_path / "crash").iterdir()
    log = (folder / "log.txt").read_text()
    assert "Traceback" in log
    assert "a mistake of our own" in log
    assert str(folder / "log.txt") in result.output


def test_running_out_of_memory_is_exit_code_3_and_says_what_to_lower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exhaust(*arguments: object, **keywords: object) -> None:
        raise MemoryError("64 GiB")

    monkeypatch.setattr(work_module, "final_evaluation", exhaust)
    message = refused("run", write_tiny(tmp_path), "--runs", tmp_path / "runs", code=3)
    assert "training.batch_size" in message


def test_a_folder_of_runs_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    assert "/proc/nope" in refused("run", write_tiny(tmp_path), "--runs", "/proc/nope")


@pytest.mark.parametrize("command", ["run", "check"])
def test_running_out_of_memory_while_loading_is_exit_code_3(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    def exhaust(*arguments: object, **keywords: object) -> None:
        torch.empty(10**15, device="cpu")

    monkeypatch.setattr("jepa_lab.composition.data.prepare_data", exhaust)
    monkeypatch.setattr("jepa_lab.inspection.build_model", exhaust)
    runs = ["--runs", tmp_path / "runs"] if command == "run" else []
    message = refused(command, write_tiny(tmp_path), *runs, code=3)
    assert "4000000000000000 bytes" in message
    assert "data.max_images" in message


def test_check_prints_the_resolved_yaml_and_the_numbers_that_follow(tmp_path: Path) -> None:
    result = invoke("check", write_tiny(tmp_path), "training.epochs=4")
    assert result.exit_code == 0, result.output
    for text in ("epochs: 4", "name: multi_block", "4x4 = 16 patches", "parameters", "GFLOP", "computed / useful FLOPs",
                 "20 (5 per epoch)", "context patches", "patches never used"):  # fmt: skip
        assert text in result.output


def test_check_counts_the_operations_of_a_device_that_is_not_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    file = write_tiny(tmp_path)

    def row(*overrides: str) -> str:
        result = invoke("check", file, *overrides)
        assert result.exit_code == 0, result.output
        (line,) = (line for line in result.output.splitlines() if line.startswith("computed / useful FLOPs"))
        found = "'cuda' is not on this machine, which has cpu (1)" in " ".join(result.output.split())
        assert found == ("training.device=cuda" in overrides)
        return line.removeprefix("computed / useful FLOPs").strip()

    here, there = row("training.device=cpu"), row("training.device=cuda")
    assert "on cpu: tokens not padded, unread ones dropped" in here
    assert "on cuda: buffers of " in there
    assert all(0.5 < float(each.split()[0]) < 1.15 for each in (here, there))
    message = refused("check", file, "training.device=mps", "training.capture=on")
    assert "training.capture=on captures CUDA graphs" in message


def test_list_shows_every_family_and_its_json_the_fields() -> None:
    families = json.loads(invoke("list", "--json").output)
    assert {"masker", "position", "loss", "target", "dataset", "augmentation", "ema_momentum"} <= set(families)
    maskers = {entry["name"]: entry for entry in families["masker"]}
    assert set(maskers) >= {"multi_block", "reference_multi_block", "single_block", "random"}
    fields = {field["name"]: field for field in maskers["multi_block"]["fields"]}
    assert fields["num_targets"]["default"] == 4
    text = invoke("list", "loss").output
    assert "smooth_l1" in text
    assert "beta" in text


def test_the_shipped_schema_is_current_and_accepts_the_shipped_pipelines() -> None:
    printed = json.loads(invoke("schema").output)
    shipped = json.loads((ROOT / "docs" / "pipeline.schema.json").read_text())
    assert printed == shipped, "run `make schema`"
    for file in (ROOT / "pipelines").glob("*.yaml"):
        text = file.read_text()
        assert "$schema=../docs/pipeline.schema.json" in text.splitlines()[0]
        content = plain_document(text, str(file)).data
        jsonschema.validate(content, shipped, jsonschema.Draft202012Validator)
        for wrong in ({**content, "masked": 1}, {**content, "masker": {"name": "multi_block", "num_targets": "x"}}):
            with pytest.raises(jsonschema.ValidationError):
                jsonschema.validate(wrong, shipped, jsonschema.Draft202012Validator)


def test_probe_writes_a_new_result_beside_the_old_one(finished: Path) -> None:
    before = (finished / "result.json").read_text()
    result = invoke("probe", finished, "probe.encoder=context", "probe.additional=[{name: knn, neighbors: 3}]")
    assert result.exit_code == 0, result.output
    assert "this run" in result.output
    content = json.loads((finished / "probes" / "1.json").read_text())
    scored = read_predictions(finished / "probes", content["predictions"]).scored("probe/validation_accuracy")
    assert scored is not None
    assert scored.correct.mean() == pytest.approx(content["metrics"]["probe/validation_accuracy"])
    assert content["settings"]["encoder"] == "context"
    assert "last_four" in refused("probe", finished, "probe.layers=last_four")
    assert (finished / "result.json").read_text() == before
    other = "probe.data={dataset: {name: synthetic, num_train: 300, num_test: 60}}"
    assert "channel" in refused("probe", finished, other)
    assert "training.num_threads" in refused("probe", finished, "masker.num_targets=3")
    too_many = "probe.additional=[{name: knn, neighbors: 999}]"
    assert f"override '{too_many}'" in refused("probe", finished, too_many)


def test_a_finished_run_is_probed_by_more_probes_and_at_another_resolution(finished: Path) -> None:
    few = "{name: finetune, epochs: 1}, {name: low_shot, shots: [1, all], draws: 2, c_grid: [0.1]}"
    result = invoke("probe", finished, f"probe.additional=[{few}]", "probe.image_size=12", "--score-test")
    assert result.exit_code == 0, result.output
    for text in ("finetune", "low_shot, 1 label a class", "low_shot, all labels", "random encoder"):
        assert text in result.output
    announced = [line for line in result.output.splitlines() if line.startswith("probing ")]
    assert announced == [
        "probing trained encoder: logistic, finetune, low_shot",
        "probing random encoder: logistic, finetune, low_shot",
        "probing raw pixels: logistic, low_shot",
    ]
    newest = max((finished / "probes").glob("*.json"), key=lambda file: file.stat().st_mtime_ns)
    content = json.loads(newest.read_text())
    assert content["metrics"]["probe/finetune_test_accuracy"] is not None
    assert content["settings"]["image_size"] == 12
    assert (newest.with_name(f"{newest.stem}-figures") / "finetune_confusion.png").exists()
    refusal = refused("probe", finished, "probe.method=low_shot", "probe.additional=[]")
    assert "override 'probe.method=low_shot': probe.method: must be a probe that gives one accuracy" in refusal
    assert "write additional: [low_shot]" in refusal


def test_the_probe_of_the_same_settings_gives_the_run_s_own_numbers(finished: Path) -> None:
    assert invoke("probe", finished, "--score-test").exit_code == 0
    newest = max((finished / "probes").glob("*.json"), key=lambda file: file.stat().st_mtime_ns)
    own = json.loads((finished / "result.json").read_text())["metrics"]["probe/test_accuracy"]
    assert json.loads(newest.read_text())["metrics"]["probe/test_accuracy"] == own


def looks_of(folder: Path, *arguments: str) -> tuple[dict[str, Any], list[str]]:
    """Probe a run: what the new file says about the test split, and the test accuracies in it."""
    result = invoke("probe", folder, *arguments)
    assert result.exit_code == 0, result.output
    content = json.loads(max((folder / "probes").glob("*.json"), key=lambda file: int(file.stem)).read_text())
    found = [name for name, value in content["metrics"].items() if name.endswith("test_accuracy") and value is not None]
    assert content["test_split"]["in_words"] in " ".join(result.output.split())
    assert content["settings"]["score_test"] == ("--score-test" in arguments) == bool(found)
    return content["test_split"], found


def test_a_probe_looks_at_the_test_split_only_when_asked_and_counts_every_look(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder, ignore=shutil.ignore_patterns("probes"))
    assert "score_test: true" in (folder / "config.yaml").read_text()
    count, found = looks_of(folder)
    assert (count["scored"], count["looks"], found) == (False, 1, [])  # the run's own look
    count, found = looks_of(folder, "--score-test")
    assert (count["scored"], count["looks"]) == (True, 2)
    assert "probe/test_accuracy" in found
    assert "look 2 " in count["in_words"]
    assert looks_of(folder, "probe.encoder=context", "--score-test")[0]["looks"] == 3
    (folder / "probes" / "2.json").unlink()
    assert looks_of(folder)[0]["looks"] == 3
    (folder / "probes" / "3.json").write_text("damaged: it may have been a look")
    assert looks_of(folder, "probe.data={dataset: digits, max_images: 200}", "--score-test")[0]["looks"] == 4


def test_a_stored_or_given_setting_does_not_score_the_test_split(finished: Path) -> None:
    before = len(list((finished / "probes").glob("*.json"))) if (finished / "probes").exists() else 0
    for value in ("true", "false"):
        assert "pass --score-test" in refused("probe", finished, f"probe.score_test={value}")
    assert "pass --score-test" in refused("probe", finished, "probe={score_test: true}")
    assert len(list((finished / "probes").glob("*.json"))) == before


def test_a_probe_never_overwrites_an_earlier_one(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(finished, folder)
    (folder / "probes").mkdir(exist_ok=True)
    for file in (folder / "probes").glob("*.json"):
        file.unlink()
    (folder / "probes" / "7.json").write_text("kept")
    assert invoke("probe", folder).exit_code == 0
    assert (folder / "probes" / "7.json").read_text() == "kept"
    assert (folder / "probes" / "8.json").exists()


def test_a_probe_uses_the_threads_that_it_is_given(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", chosen.append)
    assert invoke("probe", finished, "training.num_threads=2").exit_code == 0
    assert chosen == [2]


def test_resuming_a_finished_run_with_another_setting_is_refused(finished: Path) -> None:
    assert "training.epochs (3 -> 5)" in refused("run", "--resume", finished, "training.epochs=5")


def test_masks_draws_a_picture(tmp_path: Path) -> None:
    out = tmp_path / "masks.png"
    result = invoke("masks", write_tiny(tmp_path), "--out", out)
    assert result.exit_code == 0, result.output
    assert out.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_shipped_digits_pipeline_runs_as_a_command_of_its_own(tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "jepa_lab", "run", str(ROOT / "pipelines/digits.yaml"), "--preset", "smoke"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "control: raw pixels" in done.stdout
    assert (tmp_path / "mlflow.db").exists()


def test_paths_with_spaces_and_other_letters_work(tmp_path: Path) -> None:
    folder = tmp_path / "é ü 字"
    folder.mkdir()
    (folder / "tiny.yaml").write_text(TINY)
    result = invoke("run", folder / "tiny.yaml", "training.epochs=1", "--runs", folder / "my runs")
    assert result.exit_code == 0, result.output


def test_a_mistake_of_ours_outside_a_run_is_one_sentence_and_its_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object, **keywords: object) -> None:
        raise ZeroDivisionError("http://ann:secret@host")

    monkeypatch.setattr("jepa_lab.config.checks.check_pipeline", fail)
    result = invoke("check", write_tiny(tmp_path))
    assert result.exit_code == 1
    assert result.output.startswith("error: jepa-lab failed (ZeroDivisionError). This is a bug in jepa-lab")
    assert "Traceback" in result.output
    assert "in fail" in result.output
    assert "secret" not in result.output


@pytest.mark.parametrize("command", ["run", "check", "sweep", "probe", "masks"])
def test_a_setting_given_as_an_option_is_told_how_settings_are_written(command: str) -> None:
    assert "Settings are overrides, without dashes: training.epochs=10." in invoke(command, "digits", "--epochs").output
    assert "overrides" not in invoke("ls", "--epochs").output


@pytest.mark.parametrize(
    "arguments", [("--nonsense",), ("nonsense",), ("run", "--nonsense"), ("check",), ("masks", "x")]
)
def test_unknown_and_missing_options_are_exit_code_2_with_the_usage(arguments: tuple[str, ...]) -> None:
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert "Usage:" in result.output
    assert "Traceback" not in result.output


def test_a_plugin_that_fails_in_the_middle_of_a_run_is_exit_code_2_with_its_name_and_its_traceback_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "failing_loss_plugin.py").write_text(
        "from jepa_lab.losses.base import LOSSES\n"
        "from jepa_lab.losses.l2 import L2Loss\n"
        "@LOSSES.register('fails_at_step_3', summary='fails', source='test')\n"
        "class Failing(L2Loss):\n"
        "    'Fails at its third call.'\n"
        "    calls = 0\n"
        "    def per_patch(self, *arguments):\n"
        "        Failing.calls += 1\n"
        "        if Failing.calls >= 3:\n"
        "            raise ValueError('the third call')\n"
        "        return super().per_patch(*arguments)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    plugin = ("plugins=[failing_loss_plugin]", "loss=fails_at_step_3")
    message = refused("run", write_tiny(tmp_path), *plugin, "--runs", tmp_path / "runs")
    (folder,) = (tmp_path / "runs").iterdir()
    assert str(folder / "log.txt") in message
    assert "loss 'fails_at_step_3'" in message
    assert "failing_loss_plugin" in message
    log = (folder / "log.txt").read_text()
    assert "failing_loss_plugin.py" in log
    assert "the third call" in log
    assert json.loads((folder / "result.json").read_text())["status"] == "FAILED"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("training.epochs=many", "must be an integer, got 'many'; write one, as in training.epochs=100. Passes over"),
        ("optimizer.betas=0.9", "must be a list, got 0.9; write one, as in optimizer.betas=[0.9, 0.999]"),
        ("context_batching=padd", "must be 'pad', 'subset' or 'prefix', got 'padd'; did you mean 'pad'?"),
        ("training=3", "must be a section of keys and values, got 3; write its keys below it"),
        ("training.epochs=0", "greater than or equal to 1, got 0; raise it"),
        ("data.root=3", "must be text, got 3; put it in quotes"),
        ("probe.method.c_grid=[]", "must have at least 1 item"),
        ("seed=[" + "9, " * 5000 + "]", "must be an integer, got [9, 9"),
    ],
)
def test_messages_end_with_a_remedy(tmp_path: Path, override: str, words: str) -> None:
    message = refused("check", write_tiny(tmp_path), override)
    assert words in message
    assert len(message) < 700


def test_of_very_many_problems_the_first_are_told(tmp_path: Path) -> None:
    file = write_tiny(tmp_path, TINY + "".join(f"k{number}: 1\n" for number in range(500)))
    message = refused("check", file)
    assert len(message.splitlines()) == 21
    assert "and 480 more problems" in message


def test_an_ablation_that_is_run_and_a_pipeline_that_is_swept_are_told_so() -> None:
    for words, told in (
        (["run", "ablations/loss.yaml"], r"loss\.yaml:\d+: this is an ablation; use `jepa-lab sweep"),
        (["sweep", "pipelines/digits.yaml"], r"digits is a pipeline, .* with `jepa-lab run digits`"),
    ):
        result = click.testing.CliRunner().invoke(main, [words[0], str(Path(__file__).parents[2] / words[1])])
        assert result.exit_code == 2
        assert re.search(told, result.output)
