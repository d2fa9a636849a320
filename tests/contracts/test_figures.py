"""What every registered figure of a run must keep."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import jepa_lab.figures.runs  # noqa: F401  (registers them)
from jepa_lab.figures.runs.base import FIGURES, RunFigure, SeenRun
from jepa_lab.figures.style import DARK, LIGHT, Drawing, for_phones, png
from jepa_lab.registry import Entry
from tests.unit.figures.seen import make_images, make_seen, without_labels

every_figure = pytest.mark.parametrize(
    "entry", [pytest.param(entry, id=entry.name) for entry in FIGURES if entry.component.after_run]
)


def drawn(entry: Entry[RunFigure], seen: SeenRun) -> list[Drawing]:
    found = entry.component(entry.params_type()).drawings(seen)
    assert not isinstance(found, str), found
    return list(found)


def pixels(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as picture:
        return np.asarray(picture.convert("L")).astype(int)


@every_figure
def test_nothing_is_cut_and_a_phone_has_room_in_both_themes(entry: Entry[RunFigure]) -> None:
    for drawing in drawn(entry, make_seen()):
        for theme, is_paper in ((LIGHT, lambda value: value > 240), (DARK, lambda value: value < 40)):
            for chosen, width in ((theme, 2700), (for_phones(theme), 900)):
                image = pixels(png(drawing, chosen))
                assert image.shape[1] <= width, drawing.name
                edge = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
                assert edge.max() - edge.min() <= 8, (drawing.name, chosen.width)
                assert is_paper(int(edge[0])), drawing.name


@every_figure
def test_words_tell_what_is_shown(entry: Entry[RunFigure]) -> None:
    for drawing in drawn(entry, make_seen()):
        assert drawing.title
        assert len(drawing.alt) > 40
        assert drawing.alt.endswith(".")


@every_figure
def test_a_title_is_added_where_nothing_else_tells_what_a_file_shows(entry: Entry[RunFigure]) -> None:
    (drawing, *_) = drawn(entry, make_seen())
    figure = drawing.draw(LIGHT)
    plain, titled = pixels(png(drawing, LIGHT)), pixels(png(drawing, LIGHT, titled=True))
    assert len(titled) > len(plain) or figure.get_suptitle()


@every_figure
def test_the_same_run_is_the_same_picture(entry: Entry[RunFigure]) -> None:
    torch.manual_seed(1)
    first = [png(drawing, LIGHT) for drawing in drawn(entry, make_seen())]
    torch.manual_seed(2)
    assert first == [png(drawing, LIGHT) for drawing in drawn(entry, make_seen())]


@every_figure
@pytest.mark.parametrize("num_images", [1, 2, 13])
def test_few_images_without_labels_are_drawn_or_left_out_with_a_sentence(
    entry: Entry[RunFigure], num_images: int
) -> None:
    images = without_labels(make_images(num_images, channels=1))
    seen = make_seen(images=images, predictions="the images have no labels", spectrum_start=None, probe_titles={})
    found = entry.component(entry.params_type()).drawings(seen)
    if isinstance(found, str):
        assert len(found) > 20
    else:
        assert all(png(drawing, LIGHT) for drawing in found)


@every_figure
def test_features_that_are_all_the_same_are_no_error(entry: Entry[RunFigure]) -> None:
    images = make_images()
    images = replace(images, features=torch.ones_like(images.features), patches=torch.ones_like(images.patches))
    found = drawn(entry, make_seen(images=images, spectrum_end=torch.zeros(8)))
    assert all(png(drawing, LIGHT) for drawing in found)
