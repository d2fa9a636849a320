"""What the figures of a run show."""

from __future__ import annotations

import importlib.util
from dataclasses import replace

import numpy as np
import pytest
import torch

from jepa_lab.figures.runs.components import principal_components
from jepa_lab.figures.runs.confusion import confusion_drawings
from jepa_lab.figures.runs.feature_map import FeatureMap
from jepa_lab.figures.runs.learning_curves import LearningCurves, curve_of
from jepa_lab.figures.runs.neighbours import Neighbours, nearest
from jepa_lab.figures.runs.patch_components import as_colours
from jepa_lab.figures.runs.spectrum import Spectrum
from jepa_lab.figures.runs.umap_map import UmapMap
from jepa_lab.figures.style import LIGHT, for_phones
from jepa_lab.registry import ComponentParams
from jepa_lab.testing.seen_runs import NAMES, make_images, make_predictions, make_rows, make_seen, seeded

NO_PARAMS = ComponentParams()


def test_components_are_those_of_a_singular_value_decomposition_whichever_side_is_smaller() -> None:
    for shape in ((40, 6), (6, 40)):
        features = torch.randn(shape, generator=seeded()).double()
        scores, shares = principal_components(features, 3)
        centred = features - features.mean(dim=0)
        left, sizes, _ = torch.linalg.svd(centred, full_matrices=False)
        assert torch.allclose(scores.abs(), (left * sizes)[:, :3].abs(), atol=1e-8)
        assert torch.allclose(shares, (sizes.square() / sizes.square().sum())[:3])
        assert (scores.gather(0, scores.abs().argmax(dim=0, keepdim=True)) > 0).all()


def test_directions_that_features_lack_are_zero() -> None:
    scores, shares = principal_components(torch.tensor([[1.0], [3.0]]), 3)
    assert scores.shape == (2, 3)
    assert shares.tolist() == pytest.approx([1.0, 0.0, 0.0])
    assert (scores[:, 1:] == 0).all()


def test_a_curve_has_a_point_for_each_row_with_a_value() -> None:
    assert curve_of(make_rows(), "monitor/rankme") == [(0.0, 4.0), (1.0, 8.0), (2.0, 12.0)]
    assert curve_of(make_rows(), "validation/nothing") == []


def test_learning_curves_have_a_panel_for_what_was_logged() -> None:
    (drawing,) = LearningCurves(NO_PARAMS).drawings(make_seen())
    assert len(drawing.draw(LIGHT).axes) == 3  # type: ignore[union-attr]
    assert "RankMe from 4 at epoch 0 to 12 at epoch 2" in drawing.alt  # type: ignore[union-attr]
    rows = [replace(row, metrics={"train/loss": row.metrics.get("train/loss")}) for row in make_rows()]
    (drawing,) = LearningCurves(NO_PARAMS).drawings(make_seen(rows=rows))
    assert len(drawing.draw(LIGHT).axes) == 1  # type: ignore[union-attr]
    assert LearningCurves(NO_PARAMS).drawings(make_seen(rows=[])) == "nothing has been logged yet"


def test_neighbours_are_the_nearest_by_cosine_and_never_the_image_itself() -> None:
    images = make_images()
    found = nearest(images.features, images.examples, 4)
    units = images.features.double() - images.features.double().mean(dim=0)
    units = units / units.norm(dim=1, keepdim=True)
    for query, neighbours, similarities in zip(images.examples.tolist(), *found, strict=True):
        others = [index for index in range(len(images)) if index != query]
        best = sorted(others, key=lambda index: -float(units[query] @ units[index]))[:4]
        assert neighbours.tolist() == best
        assert similarities.tolist() == pytest.approx([float(units[query] @ units[index]) for index in best])


def test_a_frame_is_around_neighbours_of_another_class_alone() -> None:
    images = make_images()
    (drawing,) = Neighbours(NO_PARAMS).drawings(make_seen(images=images))
    assert drawing.alt.count("another class: 0 of 60") == 1  # type: ignore[union-attr]
    wrong = replace(images, labels=images.labels.flip(0).roll(1))  # type: ignore[union-attr]
    (drawing,) = Neighbours(NO_PARAMS).drawings(make_seen(images=wrong))
    framed = sum(len(axes.patches) for axes in drawing.draw(LIGHT).axes)  # type: ignore[union-attr]
    assert f"another class: {framed} of 60" in drawing.alt  # type: ignore[union-attr]


def test_a_map_names_every_class_once_and_says_which_images_it_shows() -> None:
    (drawing,) = FeatureMap(NO_PARAMS).drawings(make_seen())
    assert "60 of 10,000 test images" in drawing.title  # type: ignore[union-attr]
    for theme in (LIGHT, for_phones(LIGHT)):
        figure = drawing.draw(theme)  # type: ignore[union-attr]
        assert len(figure.legends[0].get_texts()) == len(NAMES)
        marks = {
            (tuple(points.get_facecolor()[0]), points.get_paths()[0].vertices.tobytes())
            for points in figure.axes[0].collections
        }
        assert len(marks) == len(NAMES)


def test_more_classes_than_marks_and_colours_are_not_told_apart() -> None:
    images = make_images()
    many = replace(images, class_names=tuple(map(str, range(100))))
    (drawing,) = FeatureMap(NO_PARAMS).drawings(make_seen(images=many))
    assert drawing.draw(LIGHT).legends == []  # type: ignore[union-attr]


def test_umap_needs_its_package_and_is_left_to_reports() -> None:
    assert not UmapMap.after_run
    if importlib.util.find_spec("umap") is None:
        assert "umap-learn" in str(UmapMap(NO_PARAMS).drawings(make_seen()))


def test_a_spectrum_that_was_not_kept_is_left_out_and_rounding_is_not_drawn() -> None:
    assert "not kept" in str(Spectrum(NO_PARAMS).drawings(make_seen(spectrum_end=None)))
    (drawing,) = Spectrum(NO_PARAMS).drawings(make_seen())
    start, end = drawing.draw(LIGHT).axes[0].lines  # type: ignore[union-attr]
    assert len(start.get_xdata()) < 8, "directions a millionth as wide are rounding"
    assert len(end.get_xdata()) == 8
    assert end.get_ydata()[0] == pytest.approx(10 / 512**0.5)


def test_the_first_component_is_brightness() -> None:
    grey = np.linspace(-1, 1, 50)
    colours = as_colours(np.stack([grey, np.zeros(50), np.zeros(50)], axis=1))
    luminance = colours @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(luminance) >= -1e-9).all()
    assert luminance[-1] - luminance[0] > 0.5
    assert colours.min() >= 0
    assert colours.max() <= 1


def test_the_second_and_third_components_change_colour_and_hardly_brightness() -> None:
    for place in (1, 2):
        scores = np.zeros((50, 3))
        scores[:, 0] = np.linspace(-1, 1, 50)  # else it would have no spread
        scores[:, place] = np.where(np.arange(50) % 2, 1.0, -1.0)
        colours = as_colours(scores)
        assert np.abs(colours[20] - colours[21]).max() > 0.2


def test_confusions_are_of_test_images_where_these_were_scored_and_of_each_probe_with_one_score() -> None:
    titles = make_seen().probe_titles
    drawings = confusion_drawings(make_predictions(), titles)
    assert [drawing.name for drawing in drawings] == ["confusion", "mean_of_fits_confusion"]
    assert "97.5% of 40 test images" in drawings[0].alt
    assert "cat taken for $x_1$ ship, 1 of 8" in drawings[0].alt
    assert "60.0% of 40 test images" in drawings[1].alt, "fits are averaged"
    (first, *_) = confusion_drawings(make_predictions(has_test=False), titles)
    assert "97.5% of 40 validation images" in first.alt
