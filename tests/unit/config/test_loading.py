"""From YAML and overrides to a pipeline: values, places, messages."""

from __future__ import annotations

import functools
import pickle
import sys
from pathlib import Path

import pytest

from jepa_lab.config.checks import check_pipeline
from jepa_lab.config.loading import config_digest, dump_pipeline, load_pipeline, load_resolved
from jepa_lab.errors import ConfigError, DataError, DeviceError, Key, RunStopped, keys_within
from jepa_lab.probes.base import PROBES
from jepa_lab.registry import FAMILIES

ROOT = Path(__file__).parents[3]
SHIPPED = sorted((ROOT / "pipelines").glob("*.yaml"))
BASE = """\
name: example
data:
  dataset: digits
  image_size: 16
encoder:
  size: {name: custom, embed_dim: 24, depth: 2, num_heads: 3}
  patch_size: 2
masker: multi_block
training:
  epochs: 3
  batch_size: 32
"""


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str) -> Path:
        file = tmp_path / "example.yaml"
        file.write_text(text)
        return file

    return write


def message(file: Path, *overrides: str, preset: str | None = None) -> str:
    with pytest.raises((ConfigError, DeviceError)) as caught:
        check_pipeline(load_pipeline(file, overrides, preset))
    return str(caught.value)


def test_overrides_are_yaml_and_the_last_one_wins(write) -> None:
    overrides = [
        "optimizer.learning_rate=1e-4",
        "training.epochs=7",
        "training.epochs=9",
        "augmentation=none",
    ]
    pipeline = load_pipeline(write(BASE), overrides).pipeline
    assert pipeline.optimizer.learning_rate == 1e-4
    assert pipeline.training.epochs == 9
    assert pipeline.augmentation.name == "none"


def test_an_override_reaches_into_a_bare_component_name_and_into_a_default_component(write) -> None:
    pipeline = load_pipeline(write(BASE), ["masker.num_targets=2", "loss.beta=0.5"]).pipeline
    assert pipeline.masker.num_targets == 2
    assert pipeline.loss.beta == 0.5


def test_a_component_name_alone_replaces_the_whole_component(write) -> None:
    file = write(BASE.replace("masker: multi_block", "masker: {name: multi_block, num_targets: 2}"))
    assert load_pipeline(file, ["masker=random"]).pipeline.masker.name == "random"


def test_renaming_a_component_beside_its_old_keys_is_refused_with_the_remedy(write) -> None:
    file = write(BASE.replace("masker: multi_block", "masker: {name: multi_block, num_targets: 2}"))
    text = message(file, "masker.name=random")
    assert "num_targets" in text
    assert "masker=random" in text


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_shipped_pipelines_are_valid_and_survive_a_round_trip(file: Path) -> None:
    loaded = load_pipeline(file)
    check_pipeline(loaded)
    text = dump_pipeline(loaded.pipeline)
    again = load_resolved(text, "resolved")
    assert again == loaded.pipeline
    assert dump_pipeline(again) == text


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_the_smoke_preset_keeps_the_grid_and_the_parts_under_study(file: Path) -> None:
    full, smoke = load_pipeline(file), load_pipeline(file, preset="smoke")
    assert check_pipeline(full).grid == check_pipeline(smoke).grid
    kept = ("masker", "target", "loss", "regularizer", "hierarchy", "ema_momentum", "augmentation", "context_batching")
    for part in kept:
        assert getattr(full.pipeline, part) == getattr(smoke.pipeline, part)
    assert full.pipeline.encoder.position == smoke.pipeline.encoder.position
    predictor = {"size": smoke.pipeline.predictor.size} if full.pipeline.predictor.size.name == "custom" else {}
    assert full.pipeline.predictor.model_copy(update=predictor) == smoke.pipeline.predictor
    assert full.pipeline.optimizer.learning_rate == smoke.pipeline.optimizer.learning_rate
    assert smoke.pipeline.data.dataset.name == "digits"


def test_the_smoke_preset_makes_only_a_free_predictor_smaller_that_is_much_wider_than_its_encoder(write) -> None:
    for width, size in ((96, "custom"), (97 * 4, "half")):
        given = f"predictor: {{size: {{name: custom, embed_dim: {width}, depth: 1, num_heads: 4}}}}\n"
        assert load_pipeline(write(BASE + given), preset="smoke").pipeline.predictor.size.name == size
    assert load_pipeline(write(BASE + "predictor: {size: 1024x12}\n"), preset="smoke").pipeline.predictor.size.name == (
        "1024x12"
    )


def test_the_smoke_preset_keeps_the_data_set_when_its_root_is_given() -> None:
    pipeline = load_pipeline(ROOT / "pipelines/cifar10.yaml", ["data.root=somewhere"], "smoke").pipeline
    assert pipeline.data.dataset.name == "cifar10"
    assert pipeline.data.image_size == 32


def test_the_smoke_preset_leaves_layers_and_images_enough_for_every_probe(write) -> None:
    check_pipeline(load_pipeline(write(BASE), ["probe.layers=last_four"], "smoke"))
    classes = 100  # cifar100 has the most of the shipped data sets; each needs an image to train and one to validate
    assert load_pipeline(write(BASE), preset="smoke").pipeline.data.max_images >= 2 * classes


def test_the_smoke_preset_shortens_the_probes_that_it_knows_and_keeps_their_other_parameters(write) -> None:
    probes = "  additional: [knn, {name: low_shot, shots: [2, 3]}, {name: finetune, learning_rate: 0.5}]\n"
    file = write(BASE + "probe:\n" + probes)
    full, smoke = load_pipeline(file).pipeline.probe, load_pipeline(file, preset="smoke").pipeline.probe
    assert smoke.method.c_grid == (0.1,)
    assert smoke.additional[0] == full.additional[0]
    assert (smoke.additional[1].shots, smoke.additional[1].draws) == ((2, 3), 2)
    assert smoke.additional[1].c_grid == (0.1,), "a grid of one value has no end to be told about"
    assert (smoke.additional[2].epochs, smoke.additional[2].learning_rate) == (1, 0.5)
    for probe in PROBES:
        entry = write(BASE + f"probe: {{method: {{name: logistic, c_grid: [0.5]}}, additional: [{probe.name}]}}\n")
        if probe.name != "logistic":
            assert load_pipeline(entry, preset="smoke").pipeline.probe.additional[0].name == probe.name


def test_the_smoke_preset_keeps_the_grid_that_is_probed_on(write) -> None:
    text = BASE.replace("image_size: 16", "image_size: 32").replace("patch_size: 2", "patch_size: 8")
    file = write(text + "probe: {image_size: 48}\n")
    smoke = load_pipeline(file, preset="smoke").pipeline
    assert (smoke.data.image_size, smoke.encoder.patch_size, smoke.probe.image_size) == (8, 2, 12)


@pytest.mark.parametrize(
    ("size", "told"),
    [(15, "multiple of encoder.patch_size, got 15 and 2; use 14"), (2048, "at most 16,384 are possible")],
)
def test_a_resolution_that_the_encoder_cannot_be_probed_at_is_refused_with_its_line(
    write, size: int, told: str
) -> None:
    text = message(write(BASE + f"probe:\n  image_size: {size}\n"))
    assert told in text
    assert f"example.yaml:{len(BASE.splitlines()) + 2}: probe.image_size" in text


def test_an_override_wins_over_a_preset() -> None:
    pipeline = load_pipeline(ROOT / "pipelines/digits.yaml", ["training.epochs=5"], "smoke").pipeline
    assert pipeline.training.epochs == 5


def test_the_digest_ignores_the_seed_and_changes_with_everything_else(write) -> None:
    file = write(BASE)
    base = config_digest(load_pipeline(file).pipeline)
    assert config_digest(load_pipeline(file, ["seed=5", "tracking=none"]).pipeline) == base
    assert config_digest(load_pipeline(file, ["masker.num_targets=2"]).pipeline) != base


@pytest.mark.parametrize(
    ("text", "override", "expected"),
    [
        ("a: [1", None, ["example.yaml:", "not valid YAML"]),
        (BASE, "data.num_workers=99999", ["data.num_workers must be less than or equal to 1024", "99999", "lower it"]),
        ("- 1", None, ["example.yaml:1", "mapping", "a list"]),
        ("", None, ["an empty file"]),
        (BASE + "seed: !!python/object/apply:os.getcwd []\n", None, ["example.yaml:12", "tag", "remove"]),
        (BASE + "name: again\n", None, ["example.yaml:12", "duplicate key", "name"]),
        (BASE + "masked: 1\n", None, ["example.yaml:12", "unknown key masked", "did you mean 'masker'"]),
        (BASE.replace("epochs", "epoch"), None, ["example.yaml:10", "training.epoch", "did you mean 'epochs'"]),
        (BASE.replace("multi_block", "multi_blok"), None, ["example.yaml:8", "multi_blok", "'multi_block'"]),
        (BASE, "masker.num_target=3", ["override 'masker.num_target=3'", "did you mean 'num_targets'"]),
        (BASE, "training.epochs=many", ["override", "training.epochs", "integer", "'many'"]),
        (BASE, "training.epochs=true", ["training.epochs", "integer", "True"]),
        (BASE, "training.epochs=0", ["training.epochs", "greater than or equal to 1", "0"]),
        (BASE, "optimizer.learning_rate=.inf", ["optimizer.learning_rate", "finite"]),
        (BASE, "optimizer.learning_rate=.nan", ["optimizer.learning_rate"]),
        (BASE.replace("image_size: 16", "image_size: 17"), None, ["example.yaml:4", "multiple", "17", "use 16"]),
        (BASE, "encoder.size.num_heads=5", ["num_heads must divide", "5", "24"]),
        (BASE, "encoder.position=rope", ["ok"]),
        (BASE, "encoder.size={name: custom, embed_dim: 30, depth: 1, num_heads: 5}", ["sincos", "multiple of 4", "30"]),
        (BASE, "optimizer.warmup_epochs=5", ["override", "warmup_epochs", "5", "3"]),
        (BASE, "optimizer={warmup_epochs: 1, warmup_fraction: 0.1}", ["not both"]),
        (BASE, "masker.target_scale=[0.3, 0.2]", ["target_scale must satisfy 0 < min <= max <= 1", "(0.3, 0.2)"]),
        (BASE, "masker={name: multi_block, num_targets: 30, target_scale: [0.9, 1.0]}", ["8x8", "override"]),
        (BASE, "name=../up", ["name", "../up"]),
        (BASE, "training.accumulation_steps=5", ["accumulation_steps must divide training.batch_size", "5", "32"]),
        (BASE, "plugins=[no_such_module]", ["override 'plugins", "no_such_module", "cannot be imported"]),
        (BASE, "plugins=5", ["plugins must be a list"]),
        (BASE, "training", ["key=value"]),
        (BASE, "data.root.x=1", ["data.root"]),
        (BASE, "masker=3", ["masker"]),
        (BASE, "probe.layers=last_four", ["probe.layers", "4 blocks", "has 2"]),
        (BASE, "trainin.epochs=3", ["override 'trainin.epochs=3'", "unknown key trainin"]),
        (BASE, "seed=-1", ["seed", "-1"]),
        (BASE, "training.device=cuda:99", ["override 'training.device=cuda:99'", "not on this machine"]),
        (BASE, "data={dataset: digits, image_size: 16, channel_mean: [0.5, 0.5], channel_std: [1, 1]}",
         ["override 'data={", "data.channel_mean", "1 channel", "got 2 and 2", "null"]),
        (BASE + "seed: 2024-01-01\n", None, ["example.yaml:12", "seed is a date", "quotes"]),
        (BASE + "plugins: [a,\n 2024-01-01]\n", None, ["example.yaml:13", "plugins.1 is a date"]),
        (BASE, "seed=2024-01-01", ["override 'seed=2024-01-01'", "seed is a date"]),
    ],
)  # fmt: skip
def test_bad_input_names_place_value_rule_and_remedy(
    write, text: str, override: str | None, expected: list[str]
) -> None:
    file = write(text)
    if expected == ["ok"]:
        check_pipeline(load_pipeline(file, [override]))
        return
    found = message(file, *([override] if override else []))
    for part in expected:
        assert part in found, found
    assert "Traceback" not in found


@pytest.mark.parametrize(
    ("override", "rule"),
    [
        ("encoder.size.num_heads=5", "num_heads must divide"),
        ("encoder.size.embed_dim=25", "num_heads must divide"),
        ("encoder.size.embed_dim=18", "multiple of 4"),
        ("predictor={size: {name: custom, embed_dim: 9, depth: 1, num_heads: 2}}", "num_heads must divide"),
        ("encoder.size={name: custom, embed_dim: 40, depth: 1, num_heads: 8}", "predictor.size: num_heads"),
        ("encoder.patch_size=3", "multiple of encoder.patch_size"),
        ("data.image_size=17", "multiple of encoder.patch_size"),
        ("training.accumulation_steps=5", "accumulation_steps must divide"),
        ("augmentation.crop_scale=[0.9, 0.1]", "crop_scale must satisfy"),
        ("optimizer.betas=[0.9, 1.5]", "betas must lie"),
        ("optimizer.warmup_epochs=2", "not both"),
        ("masker.target_scale=[0.3, 0.2]", "target_scale must satisfy"),
        ("probe.layers=last_four", "needs an encoder of 4 blocks"),
        ("training.epochs=1", "warmup_epochs must be at most"),
    ],
)  # fmt: skip
def test_a_rule_between_keys_names_the_override_that_broke_it(write, override: str, rule: str) -> None:
    text = BASE + "augmentation: {name: minimal}\n"
    text += "optimizer: {warmup_fraction: 0.1}\n" if "warmup_epochs=" in override else "optimizer: {eps: 1e-9}\n"
    text = text.replace("{eps: 1e-9}", "{warmup_epochs: 2}") if "training.epochs" in override else text
    found = message(write(text), override)
    assert found.startswith(f"override {override!r}: "), found
    assert rule in found


def test_a_rule_between_keys_of_a_file_names_the_line_of_one_of_them(write) -> None:
    assert "example.yaml:12: " in message(write(BASE + "  accumulation_steps: 5\n"))
    assert "example.yaml:4: " in message(write(BASE.replace("patch_size: 2", "patch_size: 3")))


def test_the_warmup_of_a_file_is_replaced_as_the_message_says(write) -> None:
    file = write(BASE + "optimizer: {warmup_fraction: 0.1}\n")
    assert "optimizer.warmup_fraction=null" in message(file, "optimizer.warmup_epochs=2")
    overrides = ["optimizer.warmup_epochs=2", "optimizer.warmup_fraction=null"]
    assert load_pipeline(file, overrides).pipeline.optimizer.warmup(10) == 2


def test_rope_on_an_unsuitable_head_width_is_refused(write) -> None:
    size = "encoder.size={name: custom, embed_dim: 24, depth: 1, num_heads: 4}"
    found = message(write(BASE), size, "encoder.position=rope", "predictor.position=learned")
    assert "head width" in found
    assert "24 / 4 = 6" in found


def test_a_missing_file_and_an_unknown_preset_are_named(tmp_path: Path, write) -> None:
    assert "no such file" in message(tmp_path / "nowhere.yaml")
    assert "did you mean 'smoke'" in message(write(BASE), preset="smok")


def test_every_problem_of_a_file_is_told_at_once(write) -> None:
    found = message(write(BASE + "masked: 1\nlos: 2\n"))
    assert len(found.splitlines()) == 2


SECTION_OF = {
    "dataset": "data.dataset",
    "downsampling": "hierarchy.downsampling",
    "encoder_size": "encoder.size",
    "predictor_size": "predictor.size",
    "position": "encoder.position",
    "probe": "probe.method",
    "tracker": "tracking",
}
"""Where a family is chosen, if not under its own name."""
IN_A_LIST = {"monitor": "monitors.end"}
NOT_IN_A_PIPELINE = {"executor", "export_format", "feature_format", "figure", "weight_source"}


@pytest.mark.parametrize("family", sorted(set(FAMILIES) - NOT_IN_A_PIPELINE))
def test_a_plugin_adds_a_component_of_any_family_that_the_yaml_can_name(write, tmp_path, monkeypatch, family) -> None:
    (tmp_path / f"my_{family}_plugin.py").write_text(
        "from jepa_lab.registry import FAMILIES\n"
        f"base = next(iter(FAMILIES[{family!r}])).component\n"
        f"@FAMILIES[{family!r}].register('mine_for_the_test', summary='mine', source='test')\n"
        "class Mine(base):\n    'Mine.'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    key, value = SECTION_OF.get(family, family), "mine_for_the_test"
    if family in IN_A_LIST:
        key, value = IN_A_LIST[family], "[mine_for_the_test]"
    pipeline = load_pipeline(write(BASE), [f"plugins=[my_{family}_plugin]", f"{key}={value}"]).pipeline
    chosen = functools.reduce(getattr, key.split("."), pipeline)
    chosen = chosen[0] if family in IN_A_LIST else chosen
    assert type(chosen).__name__ == "MineConfig"


def test_a_list_of_components_takes_names_and_parameters_in_files_and_overrides(write) -> None:
    file = write(BASE + "probe:\n  additional: [{name: knn, neighbors: 3}]\n")
    assert load_pipeline(file).pipeline.probe.additional[0].neighbors == 3
    probe = load_pipeline(file, ["probe.additional=[knn]"]).pipeline.probe
    assert [(item.name, item.neighbors) for item in probe.additional] == [("knn", None)]
    assert load_pipeline(file, ["probe.additional=[]"]).pipeline.probe.additional == ()
    assert [item.name for item in load_pipeline(write(BASE)).pipeline.probe.additional] == ["knn"]


def test_a_resolved_list_of_components_gives_the_same_pipeline_again(write) -> None:
    pipeline = load_pipeline(write(BASE), ["probe.additional=[{name: knn, neighbors: 3}]"]).pipeline
    text = dump_pipeline(pipeline)
    assert "neighbors: 3" in text
    assert load_resolved(text, "resolved") == pipeline


@pytest.mark.parametrize(
    ("lines", "place", "told"),
    [
        ("  additional:\n  - name: knn\n    neighbors: 0", 4, "probe.additional.0.neighbors must be greater than"),
        ("  additional:\n  - knn\n  - kn", 4, "unknown probe 'kn' for probe.additional.1; did you mean 'knn'?"),
        ("  additional:\n  - {name: knn, neighbours: 3}", 3, "unknown key probe.additional.0.neighbours; did you"),
        ("  additional:\n  - 3", 3, "probe.additional.0 must be"),
        ("  additional:\n  - {neighbors: 3}", 3, "probe.additional.0 needs a name"),
        ("  additional: knn", 2, "probe.additional must be a list, got 'knn'; write one, as in probe.additional=[knn]"),
        ("  additional: [knn, {name: knn, neighbors: 3}]", 2, "probe.additional: 'knn' stands here 2 times; keep one"),
        ("  additional: [knn]\n  method: knn", 2, "additional holds 'knn', which is the method already; remove it"),
    ],
)
def test_what_is_wrong_in_a_list_of_components_is_told_with_its_line(write, lines: str, place: int, told: str) -> None:
    first = len(BASE.splitlines())
    text = message(write(BASE + "probe:\n" + lines + "\n"))
    assert told in text
    assert f"example.yaml:{first + place}: " in text


def test_a_component_of_a_list_that_a_plugin_adds_can_be_named(write, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "my_listed_plugin.py").write_text(
        "from jepa_lab.probes.base import PROBES\n"
        "from jepa_lab.probes.knn import Knn\n"
        "@PROBES.register('listed_for_the_test', summary='mine', source='test')\nclass Mine(Knn):\n    'Mine.'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    overrides = ["plugins=[my_listed_plugin]", "probe.additional=[knn, {name: listed_for_the_test, neighbors: 2}]"]
    assert load_pipeline(write(BASE), overrides).pipeline.probe.additional[1].neighbors == 2


def test_a_plugin_data_set_can_be_probed_on(write, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "my_images_plugin.py").write_text(
        "from jepa_lab.data.base import DATASETS\n"
        "from jepa_lab.data.datasets.digits import Digits\n"
        "@DATASETS.register('images_for_the_test', summary='mine', source='test')\nclass Mine(Digits):\n    'Mine.'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    overrides = ["plugins=[my_images_plugin]", "probe.data={dataset: images_for_the_test}"]
    assert load_pipeline(write(BASE), overrides).pipeline.probe.data.dataset.name == "images_for_the_test"


def test_a_plugin_may_not_take_a_name_that_exists(write, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "greedy_plugin.py").write_text(
        "from jepa_lab.maskers.base import MASKERS\n"
        "from jepa_lab.maskers.single_block import SingleBlock\n"
        "@MASKERS.register('random', summary='mine', source='test')\nclass Mine(SingleBlock):\n    'Mine.'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert "greedy_plugin" in message(write(BASE + "plugins: [greedy_plugin]\n"))


def test_a_package_adds_components_by_its_entry_point(write, tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "packaged_loss.py").write_text(
        "from jepa_lab.losses.base import LOSSES\n"
        "from jepa_lab.losses.l2 import L2Loss\n"
        "@LOSSES.register('packaged_for_the_test', summary='mine', source='test')\nclass Mine(L2Loss):\n    'Mine.'\n"
    )
    metadata = tmp_path / "packaged_loss-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: packaged-loss\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[jepa_lab.components]\nmine = packaged_loss\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert load_pipeline(write(BASE), ["loss=packaged_for_the_test"]).pipeline.loss.name == "packaged_for_the_test"


def test_a_password_in_a_tracking_uri_is_in_no_message(write) -> None:
    found = message(write(BASE), "tracking={name: mlflow, uri: 'nonsense://ann:secret@host'}")
    assert "secret" not in found


@pytest.mark.parametrize(
    ("section", "overrides", "raised", "place"),
    [
        ("data", [], DataError("there are no files"), "example.yaml:3"),
        ("data", ["data.dataset=cifar10"], DataError("there are no files"), "override 'data.dataset=cifar10'"),
        ("data", ["data.max_images=4"], ConfigError("too few", keys=["max_images"]), "override 'data.max_images=4'"),
        ("data", ["data.max_images=4"], ConfigError("odd", keys=["image_size"]), "example.yaml:4"),
        ("data", ["training.epochs=4"], ConfigError("odd", keys=["image_size"]), "example.yaml:4"),
        ("data", ["training.epochs=4"], ConfigError("odd", keys=[Key("epochs", "training")]),
         "override 'training.epochs=4'"),
        ("training", ["training.device=tpu"], DeviceError("none", keys=["device"]), "override 'training.device=tpu'"),
        ("probe.data", ["probe.data={dataset: digits}"], DataError("bad"), "override 'probe.data={dataset: digits}'"),
        ("probe.data", ["probe.data={dataset: digits}", "probe.encoder=context"],
         DataError("the encoder cannot read them"), "override 'probe.data={dataset: digits}'"),
    ],
)  # fmt: skip
def test_errors_get_the_place_of_their_keys_whatever_words_they_use(write, section, overrides, raised, place) -> None:
    file = write(BASE)
    text = str(raised)
    with pytest.raises(type(raised)) as caught, load_pipeline(file, overrides).located(section):
        raise raised
    assert str(caught.value) == f"{file.parent / place if place.startswith('example') else place}: {text}"


def test_the_keys_of_an_error_are_written_with_the_section_that_is_nearest_to_it(write) -> None:
    loaded = load_pipeline(write(BASE), ["probe.data={dataset: digits, root: x}"])
    with pytest.raises(ConfigError) as caught, loaded.located("data"), keys_within("probe.data"):
        raise ConfigError(Key("root"), " must be a folder, got 'data.root'; set ", Key("on_bad_image"), "=skip")
    assert caught.value.keys == ("probe.data.root", "probe.data.on_bad_image")
    assert str(caught.value) == (
        "override 'probe.data={dataset: digits, root: x}': probe.data.root must be a folder, got 'data.root'; "
        "set probe.data.on_bad_image=skip"
    )


def test_an_error_goes_to_another_process_with_its_keys_and_its_place() -> None:
    error = DataError(Key("root"), " is gone", keys=["dataset"], remedy="restore it")
    error.relate_to("data")
    error.locate("x.yaml:3")
    copied = pickle.loads(pickle.dumps(error))
    assert str(copied) == str(error) == "x.yaml:3: data.root is gone; restore it"
    assert copied.keys == error.keys == ("data.root", "data.dataset")


PLUGIN_TARGET = """
from pydantic import Field, model_validator
from jepa_lab.errors import Key, Problem
from jepa_lab.registry import ComponentParams, broken_rule
from jepa_lab.targets.base import TARGETS
from jepa_lab.targets.pixels import PixelsTarget

class Params(ComponentParams):
    encoder: int = Field(1, description='A parameter with the name of a section.')
    low: int = Field(1, description='.')
    high: int = Field(2, description='.')
    image: int = Field(0, description='.')

    @model_validator(mode='after')
    def _check(self):
        if self.low > self.high:
            raise broken_rule('this image has no encoder for it', keys=['low', 'high'])
        if self.image < 0:
            raise ValueError('the encoder is low and high')
        return self

@TARGETS.register('located_for_the_test', summary='mine', source='test')
class Mine(PixelsTarget):
    'Mine.'
    Params = Params

    @classmethod
    def check(cls, params, known):
        if params.encoder == 2:
            return 'this target needs an encoder of 7 blocks; use another'
        if params.encoder == 3:
            return Problem(Key('low'), f' must be odd, got {params.low}; the encoder and patch_size do not matter')
        return None
"""


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["target.encoder=2", "encoder.patch_size=4", "data.image_size=32"],
         "override 'encoder.patch_size=4': target: this target needs an encoder of 7 blocks; use another"),
        (["target.low=1", "target.encoder=3", "encoder.layer_scale=0.1"],
         "override 'target.low=1': target.low must be odd, got 1; the encoder and patch_size do not matter"),
        (["target.low=9", "target.encoder=1", "target.image=1"],
         "override 'target.low=9': target: this image has no encoder for it"),
        (["target.high=0", "target.low=9", "target.encoder=1"],
         "override 'target.low=9': target: this image has no encoder for it"),
        (["target.low=0", "target.image=-1"], "override 'target.image=-1': target: the encoder is low and high"),
    ],
)  # fmt: skip
def test_what_a_plug_in_refuses_is_told_with_the_place_of_the_parameters_that_it_names(
    write, tmp_path, monkeypatch, overrides, told
) -> None:
    (tmp_path / "located_target.py").write_text(PLUGIN_TARGET)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "located_target", raising=False)
    text = BASE + "plugins: [located_target]\ntarget: {name: located_for_the_test}\n"
    assert message(write(text), *overrides) == told


def test_located_leaves_errors_that_have_a_place_and_those_of_other_exit_codes(write) -> None:
    loaded = load_pipeline(write(BASE))
    for error in (loaded.error("training.epochs", "too many"), RunStopped("disk full"), ZeroDivisionError("ours")):
        text = str(error)
        with pytest.raises(type(error)) as caught, loaded.located("data"):
            raise error
        assert str(caught.value) == text
