"""A mistake of a plug-in is told as the plug-in's: exit code 2 and one message that names component and module."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from jepa_lab.cli import main
from jepa_lab.config.loading import load_plugins
from jepa_lab.data.augmentations.base import AUGMENTATIONS
from jepa_lab.data.augmentations.none import NoAugmentation
from jepa_lab.errors import ConfigError, PluginError
from jepa_lab.figures.style import LIGHT
from jepa_lab.losses.base import LOSSES
from jepa_lab.registry import FAMILIES
from jepa_lab.run_figures import collect_drawings
from jepa_lab.testing.seen_runs import make_seen
from jepa_lab.tracking.run_folder import RunFolder
from tests.integration.pipelines import TINY, write_tiny

PLUGIN = "tests.integration.bad_components"

BEFORE_A_RUN = [
    ("loss=checking_loss", "loss 'checking_loss'", "returned False from check; expected a Problem, a str or None"),
    ("masker=none_masker", "masker 'none_masker'", "returned None from sample(batch_size=2); expected a Masks"),
    ("masker=bare_masker", "masker 'bare_masker'", "from sample(batch_size=2).context; expected a Patches"),
    ("masker=float_masker", "masker 'float_masker'", "from sample(batch_size=2).context.indices; expected a tensor [B"),
    ("masker=flat_masker", "masker 'flat_masker'", "expected a tensor [B, E, K] = [2, 1, "),
    ("masker=outside_masker", "masker 'outside_masker'", "expected indices of the 16 patches of the 4x4 grid"),
    ("masker=building_masker", "the plug-in tests.integration.bad_components", "KeyError: 'nowhere'"),
    ("encoder.size=tuple_size", "encoder_size 'tuple_size'", "returned a tuple of (16, 1, 2) from resolve"),
    ("encoder.size=empty_size", "encoder_size 'empty_size'", "returned 0 from resolve().embed_dim; expected an int of"),
    ("predictor.size=half_block", "predictor_size 'half_block'", "returned 0.5 from resolve().depth"),
    ("ema_momentum=rising_ema", "ema_momentum 'rising_ema'", "returned 1.01 from momentum(0.11); expected a float in"),
    ("ema_momentum=tensor_ema", "ema_momentum 'tensor_ema'", "returned a tensor [] float32 on cpu from momentum(0)"),
    ("data.dataset=float_images", "dataset 'float_images'", "float32 on cpu from load (train).images; expected"),
    ("data.dataset=large_images", "dataset 'large_images'", "1, 8, 8] uint8"),
    ("data.dataset=text_labels", "dataset 'text_labels'", "from load (train).labels; expected a tensor [n]"),
    ("data.dataset=ten_labels", "dataset 'ten_labels'", "labels from 0, below the 2 class_names"),
    ("data.dataset=tuple_data", "dataset 'tuple_data'", "expected an ImageData"),
    ("masker=unsized_masker", "masker 'unsized_masker'", "has no attribute 'num_target_blocks'"),
    ("target=half_a_feature", "target 'half_a_feature'", "returned 0.5 from num_features; expected an int"),
    ("data.dataset=many_images", "dataset 'many_images'", "returned 'many' from num_train_images; expected an int"),
    ("data.dataset=unlabelled_test", "dataset 'unlabelled_test'", "expected a label for each image"),
    ("probe.additional=[nameless_probe]", "probe 'nameless_probe'", "has no attribute 'title'"),
    ("probe.additional=[counting_probe]", "probe 'counting_probe'", "returned 1 from score_keys(1); expected a tuple"),
    ("monitors.end=[unread_monitor]", "monitor 'unread_monitor'", "has no attribute 'readings'"),
    ("monitors.probe_epochs=[borrowing_monitor]", "monitor 'borrowing_monitor'", "expected keys that are "
     "'borrowing_monitor', or begin with 'borrowing_monitor_'"),
    ("data.dataset=listed_files", "dataset 'listed_files'", "expected an ImageFileSet or None"),
]  # fmt: skip
"""Override, component, and what is said of it, of mistakes that are found before a run folder is made."""

IN_A_RUN = [
    ("loss=scalar_loss", "loss 'scalar_loss'", "returned a tensor [] float32 on cpu from per_patch; expected a tensor "
     "[B, E, M, T]"),
    ("loss=unreduced_loss", "loss 'unreduced_loss'", "from per_patch; expected a tensor [B, E, M, T]"),
    ("loss=raising_loss", "loss 'raising_loss'", "failed in per_patch"),
    ("loss=detached_loss", "loss 'detached_loss'", "expected one through which gradients reach the predictions"),
    ("masker=later_outside_masker", "masker 'later_outside_masker'", "indices from 900 to "),
    ("masker=later_masker", "masker 'later_masker'", "from sample(batch_size=24).context.indices"),
    ("encoder.position=double_position", "position 'double_position'", "float64 on cpu from add; expected a tensor"),
    ("predictor.position=double_position", "position 'double_position'", "float64 on cpu from add"),
    ("predictor.position=short_position", "position 'short_position'", "from add; expected a tensor [B, K, D]"),
    ("encoder.position=single_rotation", "position 'single_rotation'", "expected a pair of tensors"),
    ("encoder.position=torn_rotation", "position 'torn_rotation'", "expected one angle for features 2i and 2i + 1"),
    ("target=narrow_target", "target 'narrow_target'", "expected a tensor [B, M, T, num_features] = [24, 2, "),
    ("target=nothing_target", "target 'nothing_target'", "returned None from compute"),
    ("target=raising_target", "target 'raising_target'", "failed in fit"),
    ("regularizer=list_regularizer", "regularizer 'list_regularizer'", "expected a dict of Term by name"),
    ("regularizer=bare_regularizer", "regularizer 'bare_regularizer'", "as 'mine'; expected a Term"),
    ("regularizer=vector_regularizer", "regularizer 'vector_regularizer'", "as the value of 'mine'; expected a tensor "
     "scalar"),
    ("augmentation=byte_augmentation", "augmentation 'byte_augmentation'", "uint8 on cpu from apply"),
    ("augmentation=cropping_augmentation", "augmentation 'cropping_augmentation'", "4, 4] float32 on cpu from apply"),
    ("augmentation=one_draw_augmentation", "augmentation 'one_draw_augmentation'", "of B = 24 rows"),
    ("hierarchy={num_levels: 2, downsampling: stacking}", "downsampling 'stacking'", "expected a tensor [S, N', D]"),
    ("monitors.probe_epochs=[bare_monitor]", "monitor 'bare_monitor'", "returned 1.0 from measure; expected a dict"),
    ("monitors.end=[infinite_monitor]", "monitor 'infinite_monitor'", "returned inf from measure (infinite_monitor)"),
    ("monitors.end=[raising_monitor]", "monitor 'raising_monitor'", "failed in measure"),
    ("probe.additional=[number_probe]", "probe 'number_probe'", "returned 0.5 from run; expected a ProbeOutcome"),
    ("probe.additional=[percent_probe]", "probe 'percent_probe'", "returned 97.5 from run (validation_accuracy)"),
    ("probe.additional=[repeating_probe]", "probe 'repeating_probe'", "returned a tuple of ('', '') from run (keys"),
    ("probe.additional=[tensor_probe]", "probe 'tensor_probe'", "expected JSON values"),
    ("probe.additional=[silent_probe]", "probe 'silent_probe'", "or `predicts_classes = False` in a probe that"),
    ("probe.additional=[flattering_probe]", "probe 'flattering_probe'", "expected 0.99, the validation accuracy"),
]  # fmt: skip


OF_A_TRACKER = [
    ("tracking=text_tracker", "tracker 'text_tracker'", "returned 'sqlite:///mine.db' from settings"),
    ("tracking=mute_tracker", "tracker 'mute_tracker'", "returned None from describe; expected a text"),
    ("tracking=stateless_tracker", "tracker 'stateless_tracker'", "returned None from close; expected a MirrorState"),
]


@pytest.fixture(autouse=True)
def fresh_plugin(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its components are forgotten after every test, so it must be imported anew."""
    monkeypatch.delitem(sys.modules, PLUGIN, raising=False)
    monkeypatch.delitem(sys.modules, "tests.integration.bad_figures", raising=False)


def refused(tmp_path: Path, command: str, *overrides: str, text: str = TINY) -> str:
    """The message of a command that ends with exit code 2."""
    arguments = [command, str(write_tiny(tmp_path, text)), f"plugins=[{PLUGIN}]", "training.epochs=1", *overrides]
    if command == "run":
        arguments += ["--runs", str(tmp_path / "runs")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2, result.output
    assert result.output.count("error: ") == 1
    assert "bug in jepa-lab" not in result.output
    return result.output[result.output.index("error: ") :]


@pytest.mark.parametrize(("override", "component", "told"), BEFORE_A_RUN, ids=lambda value: str(value)[:40])
def test_a_broken_contract_is_found_before_a_run_folder_is_made(
    tmp_path: Path, override: str, component: str, told: str
) -> None:
    message = refused(tmp_path, "run", override)
    assert component in message
    assert PLUGIN in message
    assert told in message
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(("override", "component", "told"), IN_A_RUN, ids=lambda value: str(value)[:40])
def test_a_broken_contract_ends_a_run_with_the_name_of_its_component(
    tmp_path: Path, override: str, component: str, told: str
) -> None:
    message = refused(tmp_path, "run", override)
    assert component in message
    assert PLUGIN in message
    assert told in message
    (folder,) = (tmp_path / "runs").iterdir()
    result = RunFolder.open(folder).read_result()
    assert result is not None
    assert result["status"] == "FAILED"
    assert component in result["error"]


def test_every_family_of_a_pipeline_has_a_component_that_breaks_its_contract() -> None:
    told = {component.split()[0] for _, component, _ in [*BEFORE_A_RUN, *IN_A_RUN, *OF_A_TRACKER]} - {"the"}
    assert told >= set(FAMILIES) - {"executor", "export_format", "feature_format", "figure", "weight_source"}


def test_figures_that_break_their_contract_are_named_and_keep_no_other_from_being_drawn() -> None:
    load_plugins(["tests.integration.bad_figures"])
    found = collect_drawings(make_seen(), after_run=True, use=lambda drawing: drawing.draw(LIGHT))
    told = {
        "single_figure": "returned an object of type jepa_lab.figures.style.Drawing from drawings; expected a sequence",
        "empty_figure": "returned a list of () from drawings; expected a sequence of at least one Drawing",
        "taking_figure": "returned a list of ('masks') from drawings (names); expected names that no other drawing has",
        "raising_figure": "failed in fail (",
    }
    assert set(found.failed) == set(told)
    for name, words in told.items():
        assert isinstance(found.failed[name], PluginError)
        assert f"figure {name!r}" in str(found.failed[name])
        assert words in str(found.failed[name])
        assert "tests.integration.bad_figures" in str(found.failed[name])
    assert {"masks", "mine"} <= {drawing.name for drawing in found.drawings}


def test_the_traceback_of_a_plug_ins_exception_is_in_the_log(tmp_path: Path) -> None:
    message = refused(tmp_path, "run", "loss=raising_loss")
    assert "ZeroDivisionError: no patch of mine" in message
    (folder,) = (tmp_path / "runs").iterdir()
    log = RunFolder.open(folder).log.read_text()
    assert str(RunFolder.open(folder).log) in message
    assert "Traceback" in log
    assert "bad_components.py" in log


def test_an_exception_in_code_of_our_own_stays_ours_whatever_plug_ins_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jepa_lab.composition.work.build_whole_step", None)  # whose call is a TypeError in run.py
    arguments = ["run", write_tiny(tmp_path), f"plugins=[{PLUGIN}]", "--runs", tmp_path / "runs"]
    result = CliRunner().invoke(main, list(map(str, arguments)))
    assert result.exit_code == 1, result.output


def test_the_second_call_of_a_component_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from jepa_lab.losses.base import loss_per_patch
    from jepa_lab.losses.l2 import L2Loss, L2Params

    looked: list[object] = []
    monkeypatch.setattr("jepa_lab.losses.base.require_tensor", lambda loss, *_, **__: looked.append(loss))
    loss = L2Loss(L2Params())
    for _ in range(3):
        loss_per_patch(loss, torch.zeros(1, 1, 1, 2, 4), torch.zeros(1, 1, 1, 2, 4))
    assert looked == [loss]


def test_a_component_of_a_package_that_is_not_installed_here_is_told_with_that_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "site"
    metadata = installed / "shrinking_losses-1.5.dist-info"
    metadata.mkdir(parents=True)
    (installed / "shrinking").mkdir()
    (installed / "shrinking" / "__init__.py").write_text(
        "from jepa_lab.losses.base import LOSSES\n"
        "from jepa_lab.losses.l2 import L2Loss\n"
        "@LOSSES.register('shrinking', summary='mine', source='test')\n"
        "class Shrinking(L2Loss):\n    'Mine.'\n"
    )
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: shrinking-losses\nVersion: 1.5\n")
    (metadata / "entry_points.txt").write_text("[jepa_lab.components]\nmine = shrinking\n")
    (metadata / "top_level.txt").write_text("shrinking\n")
    runs, file = tmp_path / "runs", write_tiny(tmp_path)
    with monkeypatch.context() as patch:
        patch.syspath_prepend(installed)
        done = CliRunner().invoke(main, ["run", str(file), "loss=shrinking", "training.epochs=1", "--runs", str(runs)])
        assert done.exit_code == 0, done.output
        (folder,) = (path for path in runs.iterdir() if not path.name.startswith("."))
        components = RunFolder.open(folder).read_environment()["components"]
        assert components["loss shrinking"] == {"module": "shrinking", "package": "shrinking-losses 1.5"}
        assert components["masker multi_block"]["module"] == "jepa_lab.maskers.multi_block"
        assert "probe knn" in components
    monkeypatch.delitem(sys.modules, "shrinking")
    LOSSES._entries.pop("shrinking")
    for command in (["run", "--resume", str(folder)], ["probe", str(folder)]):
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 2, result.output
        assert "unknown loss 'shrinking' for loss" in result.output
        assert "the package shrinking-losses 1.5 (module shrinking), which is not installed here" in result.output


@pytest.mark.parametrize(("override", "component", "told"), OF_A_TRACKER, ids=lambda value: str(value)[:40])
def test_a_tracker_that_breaks_its_contract_is_named(tmp_path: Path, override: str, component: str, told: str) -> None:
    message = refused(tmp_path, "run", override)
    assert component in message
    assert told in message


def test_a_crash_far_from_any_plugin_is_not_called_ours_alone_where_plugins_took_part(tmp_path: Path) -> None:
    arguments = ["run", str(write_tiny(tmp_path)), f"plugins=[{PLUGIN}]", "loss=overwriting_loss"]
    result = CliRunner().invoke(main, [*arguments, "training.epochs=1", "--runs", str(tmp_path / "runs")])
    assert result.exit_code == 1
    assert "modified by an inplace operation" in result.output
    assert f"Either what loss 'overwriting_loss' ({PLUGIN}.OverwritingLoss) gave led to it, or it is" in result.output


def test_a_method_that_cannot_be_called_as_its_base_class_says_is_refused_where_it_is_registered() -> None:
    class Old(NoAugmentation):
        def apply(self, images, draws):  # type: ignore[no-untyped-def, override]
            return images

    with pytest.raises(ConfigError, match=r"Old\.apply takes \(self, images, draws\), and is called as Augmentation"):
        AUGMENTATIONS.register("old", summary="bad", source="test")(Old)
    assert "old" not in AUGMENTATIONS
