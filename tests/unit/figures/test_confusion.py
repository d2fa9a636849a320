"""Tests of the confusion figure."""

from __future__ import annotations

import io
import itertools

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from jepa_lab.figures.confusion import confusion_drawing, row_shares
from jepa_lab.figures.letters import shortened
from jepa_lab.figures.style import LIGHT, Drawing, Theme, for_phones, png, themed


def drawing_of(counts: list[list[int]] | np.ndarray, names: list[str]) -> Drawing:
    return confusion_drawing("confusion", "Confusion", np.asarray(counts), names, "test images")


def test_rows_are_shares_of_their_class() -> None:
    shares = row_shares(np.array([[8, 2, 0], [0, 0, 0], [1, 1, 2]]))
    np.testing.assert_allclose(shares, [[0.8, 0.2, 0], [0, 0, 0], [0.25, 0.25, 0.5]])


@pytest.mark.parametrize("num_classes", [1, 2, 4, 10, 100, 130])
@pytest.mark.parametrize("theme", [LIGHT, for_phones(LIGHT)], ids=["desktop", "phone"])
def test_a_picture_is_drawn_for_any_number_of_classes(num_classes: int, theme: Theme) -> None:
    counts = np.random.default_rng(0).poisson(np.eye(num_classes) * 50 + 0.2)
    drawing = drawing_of(counts, [f"class {i}" for i in range(num_classes)])
    with Image.open(io.BytesIO(png(drawing, theme))) as picture:
        assert min(picture.size) > 400
        assert theme is LIGHT or picture.width <= 900


NAMES = {
    "short": lambda index: f"c{index}",
    "words": lambda index: f"bacterial pneumonia {index}",
    "long": lambda index: f"{index} " + 12 * "a long name ",
    "odd": lambda index: (f"$x_{index}^2$ \\foo$", f"基準 {index}", f"a<b>&c{index}", f"_under {index}")[index % 4],
}


@pytest.mark.parametrize("kind", list(NAMES))
@pytest.mark.parametrize("num_classes", [1, 2, 4, 10, 20])
def test_no_label_runs_into_another_or_out_of_the_picture(num_classes: int, kind: str) -> None:
    names = [NAMES[kind](index) for index in range(num_classes)]
    with themed(LIGHT):
        figure = drawing_of(90 * np.eye(num_classes, dtype=int) + 3, names).draw(LIGHT)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
    axes, bar = figure.axes
    texts = [figure._suptitle, axes.xaxis.label, axes.yaxis.label, bar.yaxis.label]
    texts += [*axes.get_xticklabels(), *axes.get_yticklabels(), *bar.get_yticklabels()]
    boxes = {text: text.get_window_extent() for text in texts if text.get_text()}
    assert len(boxes) >= 2 * num_classes
    for text, box in boxes.items():
        assert box.x0 >= 0 <= box.y0, text
        assert box.x1 <= figure.bbox.x1, text
        assert box.y1 <= figure.bbox.y1, text
    for one, other in itertools.combinations(boxes, 2):
        assert not boxes[one].overlaps(boxes[other]), (one, other)
    shown = [text.get_text() for text in axes.get_yticklabels()]
    assert len(set(shown)) == num_classes


def test_a_long_name_keeps_its_beginning_and_its_end() -> None:
    assert shortened("n01440764 a fish of some length", 15) == "n014407… length"
    assert shortened("tench", 15) == "tench"


def test_the_same_confusion_is_the_same_picture_and_another_is_not() -> None:
    counts = ([[9, 1], [2, 8]], [[9, 1], [2, 8]], [[1, 9], [2, 8]])
    one, two, three = (png(drawing_of(each, ["a", "b"]), LIGHT) for each in counts)
    assert one == two != three
    assert b"matplotlib" not in one.lower(), "the same picture of another version is another file"


def test_the_true_class_is_the_row() -> None:
    # Without numbers (21 classes), the one dark cell is at row 0, column 20: the upper right corner.
    counts = np.zeros((21, 21), dtype=int)
    counts[0, 20] = 5
    with Image.open(io.BytesIO(png(drawing_of(counts, [str(i) for i in range(21)]), LIGHT))) as picture:
        colours = np.asarray(picture.convert("RGB")).astype(int)
    dark = (colours[..., 2] - colours[..., 0] > 150) & (colours.sum(axis=-1) < 350)
    dark[:, int(0.88 * dark.shape[1]) :] = False  # the colour bar
    rows, columns = dark.nonzero()
    assert len(rows) > 300
    assert rows.mean() < 0.2 * dark.shape[0]
    assert columns.mean() > 0.7 * dark.shape[1]


def test_words_name_the_most_frequent_mistake() -> None:
    assert "b taken for a, 2 of 10" in drawing_of([[9, 1], [2, 8]], ["a", "b"]).alt
    assert "mistake" not in drawing_of([[9, 0], [0, 8]], ["a", "b"]).alt
