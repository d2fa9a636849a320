"""The picture of masks."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from jepa_lab.errors import ConfigError
from jepa_lab.figures.masks import CONTEXT_COLOUR, TARGET_COLOUR, draw_masks, tinted
from jepa_lab.grid import Grid
from jepa_lab.maskers.base import MASKERS
from jepa_lab.maskers.statistics import mask_statistics

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def draw(name: str, grid: Grid, images: torch.Tensor, out: Path) -> None:
    entry = MASKERS.get(name)
    masker = entry.component(entry.params_type(), grid)
    generator = torch.Generator().manual_seed(0)
    masks = masker.sample(len(images), generator)
    draw_masks(images, masks, grid, mask_statistics(masker, "pad", 16, 2, seed=0), out)


def random_images(*shape: int) -> torch.Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.mark.parametrize(
    ("name", "grid", "shape"),
    [
        ("multi_block", Grid(8, 8), (8, 3, 32, 32)),
        ("reference_multi_block", Grid(7, 10), (5, 1, 14, 20)),
        ("random", Grid(8, 8), (1, 1, 8, 8)),
    ],
)
def test_writes_a_whole_png_and_nothing_else(tmp_path: Path, name: str, grid: Grid, shape: tuple[int, ...]) -> None:
    from matplotlib.image import imread

    out = tmp_path / "new folder" / "masks.png"
    draw(name, grid, random_images(*shape), out)
    assert out.read_bytes().startswith(PNG_SIGNATURE)
    assert [path.name for path in out.parent.iterdir()] == ["masks.png"]
    picture = torch.from_numpy(imread(out)[..., :3].copy())
    assert picture.shape[1] > 1000
    red, green, blue = picture.unbind(-1)
    assert ((green > red + 0.2) & (green > blue + 0.2)).double().mean() > 0.03
    assert ((red > green + 0.2) & (red > blue + 0.2)).double().mean() > 0.03


def test_patches_are_tinted_by_their_role_and_unused_ones_lose_their_colour() -> None:
    grid = Grid(2, 2)
    image = random_images(3, 6, 8)
    is_context = torch.tensor([True, False, False, False])
    is_target = torch.tensor([False, True, False, False])
    picture = tinted(image, is_context, is_target, grid)
    assert picture.shape == (6, 8, 3)
    assert picture.min() >= 0
    assert picture.max() <= 1
    quarters = [picture[:3, :4], picture[:3, 4:], picture[3:, :4], picture[3:, 4:]]
    means = [quarter.mean(dim=(0, 1)) for quarter in quarters]
    assert means[0].argmax() == torch.tensor(CONTEXT_COLOUR).argmax()
    assert means[1].argmax() == torch.tensor(TARGET_COLOUR).argmax()
    for quarter in quarters[2:]:
        assert torch.allclose(quarter[..., 0], quarter[..., 2])
    assert all(quarter.std() > 0.005 for quarter in quarters)  # the image shows through


def test_a_one_channel_image_is_grey() -> None:
    nothing = torch.zeros(4, dtype=torch.bool)
    picture = tinted(random_images(1, 4, 4), nothing, nothing, Grid(2, 2))
    assert torch.equal(picture[..., 0], picture[..., 1])


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.png").mkdir()
    for out in (tmp_path / "file" / "masks.png", tmp_path / "folder.png"):
        with pytest.raises(ConfigError, match=rf"cannot write the figure .*{out.name}.*choose"):
            draw("random", Grid(4, 4), random_images(1, 1, 4, 4), out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder.png"]
