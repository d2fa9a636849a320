"""What every figure of a run keeps."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from jepa_lab.figures.runs.base import RunFigure, SeenRun
from jepa_lab.figures.style import DARK, LIGHT, Drawing, Theme, for_phones, png
from jepa_lab.registry import Entry
from jepa_lab.testing.places import WithoutSettings
from jepa_lab.testing.randomness import global_generators
from jepa_lab.testing.seen_runs import make_images, make_seen, without_labels

_WIDEST, _WIDEST_ON_PHONES = 2700, 900
"""Pixels, at 200 dots per inch."""


class FigureContract(WithoutSettings):
    """Tests of a `RunFigure`; of a finished run on 60 labelled images it must have something to draw."""

    def test_nothing_is_cut_and_a_phone_has_room_in_both_themes(self, entry: Entry[RunFigure]) -> None:
        for drawing in _drawn(entry, make_seen()):
            for theme in (LIGHT, DARK):
                for chosen, width in ((theme, _WIDEST), (for_phones(theme), _WIDEST_ON_PHONES)):
                    image = _grey(png(drawing, chosen))
                    assert image.shape[1] <= width, f"{drawing.name} is wider than the theme's width; use theme.width"
                    edge = np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])
                    assert edge.max() - edge.min() <= 8, f"{drawing.name} is cut off at an edge"
                    assert _is_paper(int(edge[0]), theme), f"{drawing.name} has another paper than its theme"

    def test_words_tell_what_is_shown(self, entry: Entry[RunFigure]) -> None:
        for drawing in _drawn(entry, make_seen()):
            assert drawing.title
            assert len(drawing.alt) > 40, "alt is for readers who do not see the figure"
            assert drawing.alt.endswith(".")

    def test_each_drawing_has_a_name_that_a_file_can_have(self, entry: Entry[RunFigure]) -> None:
        names = [drawing.name for drawing in _drawn(entry, make_seen())]
        assert len(set(names)) == len(names)
        assert all(re.fullmatch(r"[A-Za-z0-9_-]+", name) for name in names), names

    def test_a_title_is_added_where_nothing_else_tells_what_a_file_shows(self, entry: Entry[RunFigure]) -> None:
        (drawing, *_) = _drawn(entry, make_seen())
        figure = drawing.draw(LIGHT)
        plain, titled = _grey(png(drawing, LIGHT)), _grey(png(drawing, LIGHT, titled=True))
        assert len(titled) > len(plain) or figure.get_suptitle()

    def test_the_same_run_is_the_same_picture(self, entry: Entry[RunFigure]) -> None:
        torch.manual_seed(1)
        first = [png(drawing, LIGHT) for drawing in _drawn(entry, make_seen())]
        torch.manual_seed(2)
        before = global_generators()
        assert first == [png(drawing, LIGHT) for drawing in _drawn(entry, make_seen())]
        assert global_generators() == before

    @pytest.mark.parametrize("num_images", [1, 2, 13])
    def test_few_images_without_labels_are_drawn_or_left_out_with_a_sentence(
        self, entry: Entry[RunFigure], num_images: int
    ) -> None:
        images = without_labels(make_images(num_images, channels=1))
        seen = make_seen(images=images, predictions="the images have no labels", spectrum_start=None, probe_titles={})
        found = _drawings(entry, seen)
        if isinstance(found, str):
            assert len(found) > 20
        else:
            assert all(png(drawing, LIGHT) for drawing in found)

    def test_features_that_are_all_the_same_are_no_error(self, entry: Entry[RunFigure]) -> None:
        images = make_images()
        images = replace(images, features=torch.ones_like(images.features), patches=torch.ones_like(images.patches))
        found = _drawings(entry, make_seen(images=images, spectrum_end=torch.zeros(8)))
        assert isinstance(found, str) or all(png(drawing, LIGHT) for drawing in found)


def _drawings(entry: Entry[RunFigure], seen: SeenRun) -> Sequence[Drawing] | str:
    return entry.component(entry.params_type()).drawings(seen)


def _drawn(entry: Entry[RunFigure], seen: SeenRun) -> list[Drawing]:
    found = _drawings(entry, seen)
    assert not isinstance(found, str), f"a finished run has nothing to draw: {found}"
    assert found
    return list(found)


def _grey(content: bytes) -> np.ndarray:
    """[height, width] from 0 to 255."""
    with Image.open(io.BytesIO(content)) as picture:
        return np.asarray(picture.convert("L")).astype(int)


def _is_paper(value: int, theme: Theme) -> bool:
    return value > 240 if theme is LIGHT else value < 40
