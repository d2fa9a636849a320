"""Nothing that is read from a file executes code, and no name in a file becomes a path outside the run root."""

from __future__ import annotations

import io
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click.testing
import pytest
import torch

import jepa_lab
from jepa_lab import reprobe
from jepa_lab.cli import main
from jepa_lab.config.loading import load_pipeline
from jepa_lab.data.base import DATASETS
from jepa_lab.errors import ConfigError, JepaLabError, RunFolderError, RunStopped
from jepa_lab.tracking.metrics import read_metrics
from jepa_lab.tracking.records import read_record, write_record
from jepa_lab.tracking.run_folder import RunFolder
from jepa_lab.training.pretrain import Pretraining
from tests.integration.pipelines import write_tiny

CONSOLE_SCRIPT = Path(sys.executable).with_name("jepa-lab")


class _Payload:
    """Makes a file when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.marker),)


def payloads(marker: Path) -> dict[str, bytes]:
    """Pickles that make `marker` when they are loaded: in text, in binary, in torch's archive, behind YAML."""
    archive = io.BytesIO()
    torch.save({"model": _Payload(marker)}, archive)
    return {
        "text pickle": pickle.dumps(_Payload(marker), protocol=0),
        "pickle": pickle.dumps({b"data": _Payload(marker)}, protocol=2),
        "torch archive": archive.getvalue(),
        "YAML": f"!!python/object/apply:os.mkdir ['{marker}']\n".encode(),
    }


KINDS = ("text pickle", "pickle", "torch archive", "YAML")


def test_the_payloads_do_what_they_say(tmp_path: Path) -> None:
    for number, kind in enumerate(KINDS[:3]):
        marker = tmp_path / str(number)
        content = payloads(marker)[kind]
        if kind == "torch archive":
            torch.load(io.BytesIO(content), weights_only=False)
        else:
            pickle.loads(content)
        assert marker.is_dir()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("security")
    overrides = ("training.epochs=1", "training.checkpoint_every_steps=2")
    result = invoke("run", write_tiny(folder), *overrides, "--runs", folder / "runs")
    assert result.exit_code == 0, result.output
    (path,) = (folder / "runs").iterdir()
    return path


def invoke(*arguments: str | Path) -> click.testing.Result:
    return click.testing.CliRunner().invoke(main, [str(argument) for argument in arguments])


def test_no_file_of_a_run_folder_executes_code(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each file in turn is replaced, in an unfinished run, which is then resumed and probed as far as reading goes."""

    def stop(*_: object, **__: object) -> None:
        raise RunStopped("everything was read")

    monkeypatch.setattr(Pretraining, "run", stop)
    monkeypatch.setattr(reprobe, "final_evaluation", stop)
    marker = tmp_path / "executed"
    names = sorted(path.relative_to(finished).as_posix() for path in finished.rglob("*") if path.is_file())
    assert {"config.yaml", "run.json", "environment.json", "metrics.jsonl", "result.json"} <= set(names)
    assert any(name.endswith("model.safetensors") for name in names)
    for number, name in enumerate([*names, "mirror.json", "data.json"]):
        folder = tmp_path / "copy"
        shutil.copytree(finished, folder)
        if name != "result.json":
            (folder / "result.json").unlink()
        (folder / name).write_bytes(payloads(marker)[KINDS[number % len(KINDS)]])
        for command in (("run", "--resume", folder), ("probe", folder)):
            result = invoke(*command)
            assert result.exit_code in (0, 2, 3), (name, result.output)
            assert "Traceback" not in result.output, (name, result.output)
            assert not marker.exists(), name
        shutil.rmtree(folder)


@pytest.mark.parametrize("kind", KINDS)
def test_no_pipeline_file_executes_code(tmp_path: Path, kind: str) -> None:
    marker, file = tmp_path / "executed", tmp_path / "pipeline.yaml"
    file.write_bytes(payloads(marker)[kind])
    assert invoke("check", file).exit_code == 2
    result = invoke("check", write_tiny(tmp_path), f"seed=!!python/object/apply:os.mkdir ['{marker}']")
    assert result.exit_code == 2
    assert "tag" in result.output
    assert not marker.exists()


DATA_FILES = [
    *(f"cifar-10-batches-py/{name}" for name in ("test_batch", "batches.meta")),
    *(f"cifar-10-batches-py/data_batch_{number}" for number in range(1, 6)),
    *(f"cifar-100-python/{name}" for name in ("train", "test", "meta")),
    *(f"{part}-{what}-ubyte" for part in ("train", "t10k") for what in ("images-idx3", "labels-idx1")),
    *(f"stl10_binary/{name}" for name in ("train_X.bin", "train_y.bin", "test_X.bin", "test_y.bin", "unlabeled_X.bin",
                                          "class_names.txt", "fold_indices.txt")),
    *(f"celeba/{name}" for name in ("list_attr_celeba.txt", "list_eval_partition.txt", "identity_CelebA.txt")),
    *(f"{part}/{label}/{n}.{end}" for part in ("train", "test", "val") for label in ("a", "b") for n in (1, 2)
      for end in ("png", "jpg")),
    "celeba/img_align_celeba/000001.jpg", "list_attr_celeba.txt", "list_eval_partition.txt", "meta.bin",
    "devkit/meta.bin", "ILSVRC2012_devkit_t12.tar.gz", "tiny-imagenet-200/wnids.txt", "wnids.txt", "words.txt",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS[:3])
@pytest.mark.parametrize("dataset", [entry.name for entry in DATASETS if entry.component.needs_files])
def test_no_file_of_a_data_set_executes_code(tmp_path: Path, dataset: str, kind: str) -> None:
    marker = tmp_path / "executed"
    for name in DATA_FILES:
        for path in (tmp_path / "nested" / name, tmp_path / "flat" / Path(name).name):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(payloads(marker)[kind])
    choice = {"name": dataset, **({"download": False} if "download" in _fields(dataset) else {})}
    for root in ("nested", "flat"):
        overrides = (f"data.dataset={json.dumps(choice)}", f"data.root={tmp_path / root}")
        result = invoke("run", write_tiny(tmp_path), *overrides, "--runs", tmp_path / "runs")
        assert result.exit_code == 2, result.output
        assert not marker.exists()
        assert not (tmp_path / "runs").exists()


def _fields(dataset: str) -> set[str]:
    return set(DATASETS.get(dataset).params_type.model_fields)


FORBIDDEN = {
    r"torch\.load\((?![^)]*weights_only=True)": (),
    r"\bpickle\.loads?\(": ("training/distributed.py",),  # between the processes of one run, as torch does
    r"\bpickle\.Unpickler\b": ("data/batch_pickles.py",),  # refuses everything but arrays of bytes
    r"(?<![\w.])(eval|exec)\(": (),
    r"\byaml\.(load|full_load|unsafe_load)\(": (),
    r"allow_pickle": ("feature_files/formats/npz.py",),  # False, for a file that is written
    r"shell=True": (),
    r"\bos\.(system|popen)\(": (),
    r"\b(joblib|shelve|marshal|dill|cloudpickle)\b": ("sweeps/on_ray/driver.py",),  # a function of ours, for Ray
    r"extractall\(": (),
}


@pytest.mark.parametrize("pattern", FORBIDDEN)
def test_no_source_file_uses_what_executes_data(pattern: str) -> None:
    root = Path(jepa_lab.__file__).parent
    found = [
        f"{path.relative_to(root)}:{number}"
        for path in sorted(root.rglob("*.py"))
        if path.relative_to(root).as_posix() not in FORBIDDEN[pattern]
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if re.search(pattern, line)
    ]
    assert found == []


EVIL = "import pathlib\npathlib.Path(__file__).with_name('executed').touch()\n"


def test_a_plugin_in_the_folder_of_a_run_or_of_data_is_not_imported(finished: Path, tmp_path: Path) -> None:
    folder, data = tmp_path / "run", tmp_path / "data"
    shutil.copytree(finished, folder)
    data.mkdir()
    for place in (folder, data):
        (place / "evil_plugin.py").write_text(EVIL)
    config = folder / "config.yaml"
    config.write_text(config.read_text().replace("plugins: []", "plugins: [evil_plugin]"))
    assert "evil_plugin" in config.read_text()
    for command in (("run", "--resume", folder), ("probe", folder)):
        result = invoke(*command)
        assert result.exit_code == 2
        assert "cannot be imported" in result.output
    assert invoke("check", write_tiny(tmp_path), "plugins=[evil_plugin]", f"data.root={data}").exit_code == 2
    assert not list(tmp_path.rglob("executed"))


@pytest.mark.parametrize(
    ("command", "extra", "imported"),
    [
        ([str(CONSOLE_SCRIPT)], {}, False),
        pytest.param([sys.executable, "-m", "jepa_lab"], {}, True, marks=pytest.mark.slow),
        pytest.param([sys.executable, "-P", "-m", "jepa_lab"], {}, False, marks=pytest.mark.slow),
        pytest.param([str(CONSOLE_SCRIPT)], {"PYTHONPATH": "."}, True, marks=pytest.mark.slow),
    ],
)
def test_the_current_folder_is_searched_for_plugins_only_where_python_does(
    tmp_path: Path, command: list[str], extra: dict[str, str], imported: bool
) -> None:
    """The console script leaves it out; `python -m` puts it first, as Python does for every module."""
    if not CONSOLE_SCRIPT.exists():
        pytest.skip("the console script is not installed")
    (tmp_path / "evil_plugin.py").write_text(EVIL)
    (tmp_path / "unnamed_plugin.py").write_text(EVIL.replace("executed", "unnamed"))
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "PYTHONSAFEPATH")}
    done = subprocess.run(
        [*command, "check", str(write_tiny(tmp_path)), "plugins=[evil_plugin]"],
        cwd=tmp_path, env={**environment, **extra}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (tmp_path / "executed").exists() is imported, done.stderr
    assert done.returncode == (0 if imported else 2), done.stderr
    assert not (tmp_path / "unnamed").exists()


NAMES = ["../up", "..", ".", "/absolute", "a/b", "a\\b", "C:\\x", "a\0b", "a\nb", "x" * 81, "\u0430dmin",
         "\uff0e\uff0e\uff0fup", "", " ", "-rf", "~", "$HOME", "a b", "a*", "\u202egpj"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_no_name_leaves_the_run_root(tmp_path: Path, name: str) -> None:
    file = write_tiny(tmp_path)
    before = sorted(path for path in tmp_path.rglob("*"))
    for override in (f"name={json.dumps(name)}", f"masker={json.dumps(name)}", f"data.dataset={json.dumps(name)}"):
        assert invoke("run", file, "--runs", tmp_path / "runs", "--", override).exit_code == 2
    assert invoke("run", file, f"--preset={name}", "--runs", tmp_path / "runs").exit_code == 2
    assert invoke("list", "--", name).exit_code == 2
    assert sorted(path for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize("name", [name for name in NAMES if not re.fullmatch("[x-]r?f?x*", name)])
def test_no_run_folder_is_made_for_a_name_that_is_a_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="name"):
        RunFolder.create(tmp_path / "runs", name, "0" * 8, 0, "")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["CON", "a.", "nul.txt", "a..b", "x" * 80])
def test_names_that_windows_reserves_become_folders_that_it_takes(tmp_path: Path, name: str) -> None:
    assert load_pipeline(write_tiny(tmp_path), [f"name={name}"]).pipeline.name == name
    folder = RunFolder.create(tmp_path / "runs", name, "0" * 8, 0, "")
    assert folder.path.name == f"{name}-00000000-s0"


BOMBS = {
    "nested": b"[" * 200_000,
    "nested objects": b'{"a":' * 200_000,
    "long integer": b'{"format_version": 1, "step": ' + b"9" * 5000 + b"}",
    "huge number": b'{"format_version": 1, "step": 1e999, "epoch": 1, "time": 1, "metrics": {"a": 1}}',
    "not a number": b'{"format_version": 1, "step": NaN, "epoch": 1, "time": 1, "metrics": {"a": 1}}',
    "a list": b"[1, 2]",
    "a string": b'"x"',
    "null": b"null",
    "half a letter": b'{"format": "jepa-lab result", "a": "\\ud800", "sha256": ""}',
    "binary": bytes(range(256)),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_records_and_metrics_of_any_content_are_refused(tmp_path: Path, bomb: str) -> None:
    record, metrics = tmp_path / "result.json", tmp_path / "metrics.jsonl"
    record.write_bytes(BOMBS[bomb])
    metrics.write_bytes(BOMBS[bomb].replace(b"\n", b"") + b"\n")
    with pytest.raises(RunFolderError, match=r"result\.json"):
        read_record(record, "result", 1)
    with pytest.raises(RunFolderError, match=r"metrics\.jsonl"):
        read_metrics(metrics)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"status": "DONE"}, "status"),
        ({"last_step": "x"}, "last_step"),
        ({"metrics": [1]}, "metrics"),
        ({"metrics": None}, "metrics"),
        ({"final_checkpoint": "../../etc"}, "final_checkpoint"),
        ({"final_checkpoint": "/etc"}, "final_checkpoint"),
    ],
)
def test_a_result_with_a_right_checksum_and_wrong_content_is_refused(
    tmp_path: Path, change: dict[str, object], field: str
) -> None:
    folder = RunFolder.create(tmp_path, "a", "0" * 8, 0, "")
    sound = {"status": "FINISHED", "ended": 1.0, "last_step": 3, "final_checkpoint": None, "metrics": {"a": None}}
    write_record(folder.result, "result", 1, sound)
    assert folder.read_result() == sound
    write_record(folder.result, "result", 1, {**sound, **change})
    with pytest.raises(RunFolderError, match=field):
        folder.read_result()
    write_record(folder.description, "run", 1, change)
    with pytest.raises(JepaLabError, match=r"run\.json"):
        folder.read_description()
