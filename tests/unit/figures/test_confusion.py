"""Tests of the confusion figure."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from jepa_lab.errors import ConfigError
from jepa_lab.figures import confusion
from jepa_lab.figures.confusion import draw_confusion, row_shares
from jepa_lab.figures.letters import shortened


def test_rows_are_shares_of_their_class() -> None:
    shares = row_shares(np.array([[8, 2, 0], [0, 0, 0], [1, 1, 2]]))
    np.testing.assert_allclose(shares, [[0.8, 0.2, 0], [0, 0, 0], [0.25, 0.25, 0.5]])


@pytest.mark.parametrize("num_classes", [1, 2, 4, 10, 100, 130])
def test_a_picture_is_drawn_for_any_number_of_classes(tmp_path: Path, num_classes: int) -> None:
    counts = np.random.default_rng(0).poisson(np.eye(num_classes) * 50 + 0.2)
    out = tmp_path / "figures" / "confusion.png"
    draw_confusion(counts.tolist(), [f"class {i}" for i in range(num_classes)], 0.8, out)
    with Image.open(out) as picture:
        assert min(picture.size) > 400
    assert [path.name for path in out.parent.iterdir()] == ["confusion.png"]


NAMES = {
    "short": lambda index: f"c{index}",
    "words": lambda index: f"bacterial pneumonia {index}",
    "long": lambda index: f"{index} " + 12 * "a long name ",
    "odd": lambda index: (f"$x_{index}^2$ \\foo$", f"基準 {index}", f"a<b>&c{index}", f"_under {index}")[index % 4],
}


@pytest.mark.parametrize("kind", list(NAMES))
@pytest.mark.parametrize("num_classes", [1, 2, 4, 10, 20])
def test_no_label_runs_into_another_or_out_of_the_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, num_classes: int, kind: str
) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(confusion, "write_png", lambda figure, out: drawn.append(figure))
    names = [NAMES[kind](index) for index in range(num_classes)]
    draw_confusion((90 * np.eye(num_classes, dtype=int) + 3).tolist(), names, 0.8, tmp_path / "x.png")
    (figure,) = drawn
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


def test_the_same_confusion_is_the_same_picture_and_another_is_not(tmp_path: Path) -> None:
    draw_confusion([[9, 1], [2, 8]], ["a", "b"], 0.85, tmp_path / "one.png")
    draw_confusion([[9, 1], [2, 8]], ["a", "b"], 0.85, tmp_path / "two.png")
    draw_confusion([[1, 9], [2, 8]], ["a", "b"], 0.45, tmp_path / "three.png")
    one, two, three = ((tmp_path / f"{name}.png").read_bytes() for name in ("one", "two", "three"))
    assert one == two != three
    assert b"matplotlib" not in one.lower(), "the same picture of another version is another file"


def test_the_true_class_is_the_row(tmp_path: Path) -> None:
    # Without numbers (21 classes), the one dark cell is at row 0, column 20: the upper right corner.
    counts = np.zeros((21, 21), dtype=int)
    counts[0, 20] = 5
    draw_confusion(counts.tolist(), [str(i) for i in range(21)], 0.0, tmp_path / "out.png")
    with Image.open(tmp_path / "out.png") as picture:
        blue = np.asarray(picture.convert("RGB")).astype(int)
    dark = (blue[..., 2] - blue[..., 0] > 60) & (blue.sum(axis=-1) < 250)
    dark[:, int(0.88 * dark.shape[1]) :] = False  # the colour bar
    rows, columns = dark.nonzero()
    assert len(rows) > 300
    assert rows.mean() < 0.2 * dark.shape[0]
    assert columns.mean() > 0.7 * dark.shape[1]


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot write the figure"):
        draw_confusion([[1, 0], [0, 1]], ["a", "b"], 1.0, tmp_path / "file" / "out.png")
