"""Figures: whole labels, both themes, and words for those who do not see them."""

from __future__ import annotations

import dataclasses
import io
import itertools
from typing import Any

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image
from scipy import stats

from jepa_lab.figures.style import DARK, LIGHT, Drawing, Theme, for_phones, label, png
from jepa_lab.reports.arm_figures import cost_drawing, curves_drawing, means_drawing
from jepa_lab.reports.content import ReportInput, cleaned
from jepa_lab.reports.monitor_figure import monitor_correlations, monitors_drawing, with_last_monitors
from jepa_lab.reports.search_figures import search_drawings
from jepa_lab.reports.table import build_table
from tests.unit.reports.frames import METRIC, NASTY_NAMES, make_content, make_search, set_trial

LONG = tuple(f"arm-{i:02d}-with-a-rather-long-name-of-sixty-characters-in-all-{i:02d}" for i in range(20))


def drawings_of(content: ReportInput) -> dict[str, Drawing]:
    """All that the content has data for, by name."""
    content = cleaned(content)
    table = build_table(content)
    found = [means_drawing(table), curves_drawing(content, table), cost_drawing(table), monitors_drawing(content)]
    return {each.name: each for each in [*found, *search_drawings(content)] if each is not None}


def edges_are_paper(picture: Image.Image) -> bool:
    """Whether the outermost pixels are all of one colour: nothing is cut by the edge."""
    image = np.asarray(picture.convert("L")).astype(int)
    edge = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
    return bool(edge.max() - edge.min() <= 8)


@pytest.mark.parametrize("arms", [NASTY_NAMES, LONG], ids=["odd characters", "long names"])
def test_no_label_is_cut_at_the_edge(arms: tuple[str, ...]) -> None:
    for drawing in drawings_of(make_content(arms, num_seeds=2)).values():
        with Image.open(io.BytesIO(png(drawing, LIGHT))) as picture:
            assert edges_are_paper(picture), drawing.name


@pytest.mark.parametrize("content", [make_content(NASTY_NAMES, num_seeds=2), make_search()], ids=["arms", "search"])
def test_a_figure_for_a_phone_is_narrow_and_cuts_no_label(content: ReportInput) -> None:
    for drawing in drawings_of(content).values():
        with Image.open(io.BytesIO(png(drawing, for_phones(LIGHT)))) as picture:
            assert picture.width <= 900, drawing.name
            assert edges_are_paper(picture), drawing.name


def test_controls_far_away_do_not_press_the_arms_together() -> None:
    table = build_table(cleaned(make_content()))  # arms near 80%, controls at 60% and 70%
    drawing = means_drawing(table)
    assert drawing is not None
    figure = drawing.draw(LIGHT)
    low, high = figure.axes[0].get_xlim()
    assert 78 < low < high < 83
    words = [text.get_text() for text in figure.legends[0].get_texts()]
    assert "control: raw pixels, 70.00 (out to the left)" in words
    near = means_drawing(build_table(cleaned(make_content(effects=(-0.09, -0.07, -0.1)))))
    assert near is not None
    near_figure = near.draw(LIGHT)
    low, high = near_figure.axes[0].get_xlim()
    assert low < 70 < high
    assert "control: raw pixels, 70.00" in [text.get_text() for text in near_figure.legends[0].get_texts()]


def test_what_no_arm_changes_has_a_panel_as_well() -> None:
    content = make_content()
    same = dataclasses.replace(content, trials=content.trials.assign(predictor_parameters=300_000.0))
    drawing = cost_drawing(build_table(cleaned(same)))
    assert drawing is not None
    labels = [axes.get_xlabel() for axes in drawing.draw(LIGHT).axes]
    assert labels == ["parameters of encoder and predictor", "training time, minutes"]


def test_a_search_has_figures_of_its_own_in_both_themes() -> None:
    drawings = drawings_of(make_search())
    for name in ("history", "importances", "parallel"):
        with (
            Image.open(io.BytesIO(png(drawings[name], LIGHT))) as light,
            Image.open(io.BytesIO(png(drawings[name], DARK))) as dark,
        ):
            assert light.size == dark.size
            assert light.convert("L").getpixel((2, 2)) > 240  # type: ignore[operator]
            assert dark.convert("L").getpixel((2, 2)) < 40  # type: ignore[operator]
            assert edges_are_paper(light)


def test_a_dollar_in_a_name_is_a_dollar() -> None:
    # As mathematics this would be an error of matplotlib's parser.
    drawing = drawings_of(make_content(("base", r"$\frac$"), num_seeds=2))["means"]
    assert png(drawing, LIGHT)


def test_names_are_wrapped_and_never_shortened() -> None:
    for name in LONG:
        assert label(name).replace("\n", "") == name
        assert max(map(len, label(name).split("\n"))) <= 34
    assert label("x" * 100).replace("\n", "") == "x" * 100
    assert label("基") == "(U+57FA)"
    assert label("") == ""


def test_alt_texts_hold_the_numbers() -> None:
    drawings = drawings_of(make_content())
    assert "wide 80.43 [80.11, 80.74] %, difference +0.45 [+0.12, +0.78]" in drawings["means"].alt
    assert "random encoder 60.11" in drawings["means"].alt
    assert "probe/online_validation_accuracy: base from 29.8% to 86.9%" in drawings["curves"].alt
    assert "wide 80.43%, 1.65M parameters, 92 s" in drawings["cost"].alt


def test_parameters_that_only_some_trials_have_leave_a_gap() -> None:
    content = make_search()
    trials = content.trials.assign(
        never=np.nan, flag=[True, None] * 13, mixed=[1, "a"] * 13, list=[[1, 2], {"a": 1}] * 13
    )
    trials["masker.num_targets"] = trials["masker.num_targets"].where(trials["number"] % 2 == 1)
    trials["masker.name"] = trials["masker.name"].where(trials["number"] % 3 == 1, None)
    parameters = ("masker.num_targets", "masker.name", "never", "flag", "mixed", "list")
    search = dataclasses.replace(content.search, parameters=parameters)  # type: ignore[type-var]
    drawing = drawings_of(dataclasses.replace(content, trials=trials, search=search))["parallel"]
    assert png(drawing, LIGHT)
    assert "never" not in drawing.alt


def test_an_arm_without_any_result_keeps_its_place_in_the_figure_of_means() -> None:
    content = make_content(num_seeds=2)
    for seed in range(2):
        content = set_trial(content, "wide", seed, status="FAILED")
    drawing = drawings_of(content)["means"]
    failed, whole = (png(each, LIGHT) for each in (drawing, drawings_of(make_content(num_seeds=2))["means"]))
    with Image.open(io.BytesIO(failed)) as picture, Image.open(io.BytesIO(whole)) as other:
        assert picture.size == other.size
    assert "wide has no result" in drawing.alt


def test_the_best_point_of_the_history_is_named_in_either_direction() -> None:
    content = make_search()
    values = content.search.history["value"]  # type: ignore[union-attr]
    assert f"is trial {values.idxmax()}." in drawings_of(content)["history"].alt
    lower = dataclasses.replace(content, higher_is_better=False)
    assert f"is trial {values.idxmin()}." in drawings_of(lower)["history"].alt


def test_monitors_are_correlated_by_their_last_value_over_the_trials_with_a_result() -> None:
    content = cleaned(set_trial(make_content(), "wide", 1, status="FAILED"))
    found = monitor_correlations(content).set_index("monitor")
    curves = content.curves.query("name == 'validation/loss' and step == 120").set_index(["arm", "seed"])["value"]
    measured = content.trials.query("status == 'FINISHED'")
    last = [curves[key] for key in zip(measured["arm"], measured["seed"], strict=True)]
    expected = stats.spearmanr(last, measured[METRIC]).statistic
    assert found.loc["validation/loss", "n"] == 14
    assert found.loc["validation/loss", "rho"] == pytest.approx(expected)
    assert len(with_last_monitors(content)) == 14


def test_a_metric_that_is_a_monitor_is_not_correlated_with_itself() -> None:
    trials = make_content().trials.assign(**{"validation/loss": np.linspace(1e-5, 2e-5, 15)})
    content = make_content(metric="validation/loss", higher_is_better=False, trials=trials)
    found = monitor_correlations(cleaned(content))
    names = ("feature_std", "image_variance_ratio", "rankme", "rankme_centred")
    assert list(found["monitor"]) == [f"monitor/{name}" for name in names]
    assert set(drawings_of(content)) == {"means", "curves", "cost", "monitors"}


def test_monitors_of_training_images_and_of_plug_ins_are_correlated_too_and_say_of_how_many_images_they_are() -> None:
    accuracy = make_content().trials[METRIC]
    columns = {"monitor/lidar_train": accuracy**2, "monitor/lidar_train_images": 1000.0, "rankme_images": 287.0}
    columns |= {"monitor/mine_train": -accuracy, "monitor/mine_train_images": np.linspace(1, 15, 15)}
    content = cleaned(make_content(trials=make_content().trials.assign(**columns)))
    found = monitor_correlations(content).set_index("monitor")["rho"]
    assert found["monitor/lidar_train"] == pytest.approx(1)
    assert found["monitor/mine_train"] == pytest.approx(-1)
    assert "monitor/mine_train_images" not in found
    alt = drawings_of(content)["monitors"].alt
    assert "LiDAR, 1,000 training images +1.00 over 15 trials" in alt
    assert "centred RankMe, 287 validation images" in alt
    assert "monitor/mine_train −1.00 over 15 trials" in alt


def test_a_figure_without_data_is_left_out() -> None:
    content = make_content()
    assert (
        drawings_of(dataclasses.replace(content, trials=content.trials.iloc[:0], curves=content.curves.iloc[:0])) == {}
    )
    same = content.trials.assign(training_seconds=60.0, predictor_parameters=1.0)
    assert set(drawings_of(dataclasses.replace(content, trials=same))) == {"means", "curves", "monitors"}


def search_over(columns: dict[str, Any]) -> ReportInput:
    """A search of 24 points with these values of its parameters, repeated as often as needed."""
    content = make_search(24)
    trials = content.trials.copy()
    for name, values in columns.items():
        trials[name] = [values[number % len(values)] for number in range(len(trials))]
    assert content.search is not None
    return dataclasses.replace(
        content, trials=trials, search=dataclasses.replace(content.search, parameters=tuple(columns))
    )


@pytest.mark.parametrize("theme", [LIGHT, for_phones(LIGHT)], ids=["page", "phone"])
@pytest.mark.parametrize(
    "columns",
    [
        {"optimizer.learning_rate": [1e-4, 1.01e-4, 2e-4, 1e-2], "masker.num_targets": [2, 2, 4]},
        {"a": [0.1, 0.101, 0.102, 0.9], "b": [0.3], "c": [0.899, 0.9, 0.1]},
        {"masker": [f"multi_block(num_targets={number}, target_scale=[0.15, 0.2])" for number in range(12)], "b": [1]},
        {"masker": ["random", "multi_block"], "flag": [True, False], "b": [0.1, 0.2, 0.3, 0.4, 0.5]},
    ],
    ids=["close", "closer", "long names", "few"],
)
def test_no_line_strikes_through_a_value_and_no_value_covers_another(columns: dict[str, Any], theme: Theme) -> None:
    figure = drawings_of(search_over(columns))["parallel"].draw(theme)
    FigureCanvasAgg(figure).draw()
    axes = figure.axes[0]
    values = [text for text in axes.texts if text.get_text()]
    assert len(values) >= 2 * len(columns) - 1
    lines = max(drawn.get_zorder() for drawn in [*axes.lines, *axes.collections])
    for text in values:
        assert text.get_bbox_patch().get_facecolor()[-1] == 1.0  # lines end at its edge
        assert text.get_zorder() > lines
    boxes = {text: text.get_window_extent() for text in values}
    for one, other in itertools.combinations(boxes, 2):
        if one.xy[0] == other.xy[0]:
            assert not boxes[one].overlaps(boxes[other]), (one, other)
    shown = {text.get_text().replace("\n", "").replace(" ", "") for text in values}
    for name, given in columns.items():
        if isinstance(given[0], str):
            assert {each.replace(" ", "") for each in given} <= shown, name
