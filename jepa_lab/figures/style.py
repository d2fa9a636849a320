"""How figures look: two themes, colours that survive colour blindness, marks and dashes that survive grey print."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from jepa_lab.figures.letters import FONT, in_font
from jepa_lab.tables.wrapping import wrap

DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (2, 1)))
MARKS = ("s", "^", "D", "v", "P", "X", "o")
DOTS_PER_INCH = 200  # twice what a screen shows at the figures' size
_WRAP = 34


@dataclass(frozen=True)
class Theme:
    """Colours of paper and ink, and of arms.

    Attributes:
        colours: seven that can be told apart with any kind of colour blindness; the baseline is in ink.
        scale: the part of the cividis colour map that can be seen on this paper.
        width: of figures, in inches. columns: panels side by side. wrap: characters in a line of a name.
    """

    paper: str
    ink: str
    muted: str
    grid: str
    colours: tuple[str, ...]
    scale: tuple[float, float]
    width: float = 8.0
    columns: int = 2
    wrap: int = _WRAP


# Okabe and Ito's colours; without black, and with a darker yellow that can be seen on white.
LIGHT = Theme(
    "#ffffff",
    "#1b1f24",
    "#6a737d",
    "#d9dde2",
    ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B8860B", "#56B4E9", "#8C6BB1"),
    (0.0, 0.9),
)
DARK = Theme(
    "#15191e",
    "#e6eaee",
    "#9aa4af",
    "#343b44",
    ("#56B4E9", "#F0883E", "#2BC59B", "#E39BC6", "#E6C229", "#2F81C7", "#B79CE6"),
    (0.3, 1.0),
)


def for_phones(theme: Theme) -> Theme:
    """The same colours, as wide as a phone with letters that can be read there: panels one below the other."""
    return replace(theme, width=4.2, columns=1, wrap=18)


@dataclass(frozen=True)
class Drawing:
    """A figure that can be drawn in either theme.

    Attributes:
        name: of its file, without ending.
        alt: what it shows, in words and numbers, for readers who do not see it.
        draw: makes the matplotlib figure.
        has_pictures: whether images are in it, which need all their colours.
    """

    name: str
    title: str
    alt: str
    draw: Callable[[Theme], Any]
    has_pictures: bool = False


def png(drawing: Drawing, theme: Theme, *, titled: bool = False) -> bytes:
    """The drawing as a PNG.

    Args:
        titled: whether its title stands above it, as it must where nothing else says what the file shows.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    with themed(theme):  # while it is drawn as well: ticks are made then
        figure = drawing.draw(theme)
        if titled and figure.get_suptitle() == "":
            _set_title(figure, drawing.title)
        figure.set_dpi(DOTS_PER_INCH)
        canvas = FigureCanvasAgg(figure)
        canvas.draw()  # once, where `savefig` would draw twice and compress all colours first
    picture = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    if not drawing.has_pictures:
        # 256 colours are enough for lines and letters, and make the file a third as large.
        picture = picture.quantize(256, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    out = io.BytesIO()
    picture.save(out, format="png")
    return out.getvalue()


def _set_title(figure: Any, title: str) -> None:
    """Above everything, in room of its own."""
    lines = wrap(in_font(title), int(figure.get_figwidth() * 10))
    figure.set_figheight(figure.get_figheight() + 0.2 * len(lines) + 0.1)
    figure.suptitle("\n".join(lines), fontsize=11)


def shades(theme: Theme) -> Any:
    """A colour map from the paper, for nothing, to the first colour; it is read by lightness alone."""
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list("shades", [theme.paper, theme.colours[0]])


@contextlib.contextmanager
def themed(theme: Theme) -> Iterator[None]:
    """The settings that figures are made and drawn with."""
    import matplotlib

    settings: Any = {
        "text.parse_math": False,  # a dollar in a name is a dollar
        "font.family": [FONT],
        "font.size": 9.0,
        "axes.titlesize": 10.0,
        "axes.titlelocation": "left",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.linewidth": 0.6,
        "grid.color": theme.grid,
        "figure.facecolor": theme.paper,
        "savefig.facecolor": theme.paper,
        "axes.facecolor": theme.paper,
        "axes.edgecolor": theme.muted,
        "legend.frameon": False,
        "axes.unicode_minus": True,
    }
    settings |= dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), theme.ink)
    with matplotlib.rc_context(settings):
        yield


def empty_figure(height: float, width: float) -> Any:
    """A figure of this size in inches, whose parts keep clear of each other."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), layout="constrained")


def label(text: str, width: int = _WRAP) -> str:
    """A name as a figure can show it: whole, wrapped, with only characters that its font has.

    A character that the font lacks is written as its code point, so that two names stay two names.
    """
    # A leading underscore would keep a line out of matplotlib's legend.
    return "\n".join(f" {line}" if line.startswith("_") else line for line in wrap(in_font(text), width))


def lines_of(names: list[str]) -> int:
    """How many lines the wrapped names take together."""
    return sum(name.count("\n") + 1 for name in names)


def legend_below(figure: Any, handles: list[Any], names: list[str]) -> float:
    """A legend under the axes; the names stay whole.

    Returns:
        Its height in inches, to be added to the figure's.
    """
    longest = max((len(line) for name in names for line in name.split("\n")), default=1)
    columns = max(1, min(len(names), int(figure.get_figwidth() / (0.075 * longest + 0.6))))
    figure.legend(handles, names, loc="outside lower center", ncols=columns, handlelength=3.2)
    rows = [
        names[start : start + -(-len(names) // columns)] for start in range(0, len(names), -(-len(names) // columns))
    ]
    return 0.19 * max((lines_of(row) for row in rows), default=0) + 0.1
