"""The picture of attention: which numbers it draws, and that it is drawn."""

from __future__ import annotations

from pathlib import Path

import matplotlib.image
import pytest
import torch

from jepa_lab.errors import ConfigError
from jepa_lab.figures.attention import AttentionView, draw_attention
from jepa_lab.grid import Grid

GRID = Grid(2, 3)


def some_weights() -> torch.Tensor:
    """[B = 2, H = 4, N, N], rows that sum to 1."""
    return torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0)).mul(2).softmax(-1)


def test_by_default_a_patch_has_what_it_receives_from_all_and_even_attention_is_one() -> None:
    view, weights = AttentionView(GRID, None, ""), some_weights()
    heat = view.heat(weights)
    assert heat.shape == (2, 4, 2, 3)
    received = sum(weights[1, 2, query, 4] for query in range(6))
    assert heat[1, 2, 1, 1] == pytest.approx(received.item())
    assert view.heat(torch.full((1, 1, 6, 6), 1 / 6)).flatten() == pytest.approx(torch.ones(6))
    assert heat.mean(dim=(2, 3)) == pytest.approx(torch.ones(2, 4), abs=1e-5)


def test_a_query_shows_what_that_patch_attends_to() -> None:
    weights = some_weights()
    heat = AttentionView(GRID, (1, 2), "").heat(weights)
    assert torch.allclose(heat.flatten(2), 6 * weights[:, :, 5])


@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_has_a_row_for_an_image_and_a_column_for_a_head(tmp_path: Path, channels: int) -> None:
    images = torch.randint(0, 256, (2, channels, 8, 12), dtype=torch.uint8)
    shapes = []
    for number, (rows, heads) in enumerate([(1, 2), (2, 2), (2, 4)]):
        out = tmp_path / f"{number}.png"
        draw_attention(images[:rows], some_weights()[:rows, :heads], AttentionView(GRID, None, "title"), out)
        shapes.append(matplotlib.image.imread(out).shape)
    assert shapes[1][0] > shapes[0][0]
    assert shapes[1][1] == shapes[0][1]
    assert shapes[2][1] > shapes[1][1]


def test_the_maps_show_the_attention(tmp_path: Path) -> None:
    """Red is where it is, and even attention has no colour at all."""
    images = torch.zeros(1, 1, 8, 12, dtype=torch.uint8)
    even, one = torch.full((1, 1, 6, 6), 1 / 6), torch.full((1, 1, 6, 6), 0.1)
    one[..., 0] = 0.5
    coloured = []
    for weights in (even, one):
        draw_attention(images, weights, AttentionView(GRID, None, ""), tmp_path / "out.png")
        picture = matplotlib.image.imread(tmp_path / "out.png")[..., :3]
        maps = picture[:, : int(picture.shape[1] * 0.8)]  # without the colour bar
        coloured.append(float((maps.max(-1) - maps.min(-1) > 0.3).mean()))
    assert coloured[0] == 0
    assert coloured[1] > 0.05


def test_a_query_is_marked(tmp_path: Path) -> None:
    images = torch.zeros(1, 1, 8, 12, dtype=torch.uint8)
    even = torch.full((1, 1, 6, 6), 1 / 6)
    draw_attention(images, even, AttentionView(GRID, (0, 1), ""), tmp_path / "out.png")
    red, green, _ = torch.from_numpy(matplotlib.image.imread(tmp_path / "out.png")[..., :3]).unbind(-1)
    assert (green - red > 0.5).sum() > 100


def test_a_place_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    images = torch.zeros(1, 1, 8, 12, dtype=torch.uint8)
    with pytest.raises(ConfigError, match="cannot write the figure"):
        draw_attention(images, some_weights()[:1], AttentionView(GRID, None, ""), tmp_path / "file" / "out.png")
