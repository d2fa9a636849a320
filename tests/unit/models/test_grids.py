"""The usual grids of patches, and an odd one: shapes, masks, positions and a training step of a narrow model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from jepa_lab.build import build_model, build_sampler, build_step
from jepa_lab.config.checks import build_masker, check_pipeline, pipeline_geometry
from jepa_lab.config.loading import LoadedPipeline
from jepa_lab.grid import Grid
from jepa_lab.maskers.base import MASKERS
from jepa_lab.maskers.patches import Patches
from jepa_lab.positions.base import POSITIONS
from jepa_lab.positions.sincos import sincos_2d
from jepa_lab.training.devices import Compute
from tests.integration.pipelines import load_tiny
from tests.packers import pack_exactly
from tests.positions import ENCODER_POSITIONS, PAIRS


@dataclass(frozen=True)
class Sides:
    """An image and its patches, in pixels, and how many patches that makes a side."""

    image: int
    patch: int
    patches: int

    def load(self, folder: Path, *overrides: str) -> LoadedPipeline:
        """A narrow model on images of this size, with every masker's own defaults."""
        geometry = (f"data.image_size={self.image}", f"encoder.patch_size={self.patch}")
        return load_tiny(folder, *geometry, "training.batch_size=2", "masker=multi_block", *overrides)

    def __str__(self) -> str:
        return f"{self.image}/{self.patch}"


USUAL = [Sides(224, 16, 14), Sides(224, 14, 16), Sides(448, 16, 28), Sides(64, 8, 8)]
GRIDS = [*USUAL, Sides(63, 7, 9)]


@pytest.mark.parametrize("sides", GRIDS, ids=str)
def test_an_encoder_has_a_feature_for_each_patch_and_for_each_that_is_asked_for(sides: Sides, tmp_path: Path) -> None:
    loaded = sides.load(tmp_path)
    geometry = check_pipeline(loaded)
    assert geometry.grid == Grid(sides.patches, sides.patches)
    model = build_model(loaded.pipeline, 1)
    images = torch.randn(2, 1, sides.image, sides.image)
    with torch.no_grad():
        assert model.target_encoder(images).shape == (2, sides.patches**2, 16)
        some = torch.tensor([[sides.patches**2 - 1, 0, 5]]).expand(2, -1)
        assert model.context_encoder(images, Patches(some)).shape == (2, 3, 16)


@pytest.mark.parametrize("masker", MASKERS.names())
@pytest.mark.parametrize("sides", GRIDS, ids=str)
def test_every_masker_draws_masks_on_the_grid(sides: Sides, masker: str, tmp_path: Path) -> None:
    pipeline = sides.load(tmp_path, f"masker={masker}").pipeline
    drawn = build_masker(pipeline, pipeline_geometry(pipeline).grid).sample(16, torch.Generator().manual_seed(0))
    assert len(drawn) == 16
    for counts in (drawn.context.counts(), drawn.target.counts()):
        assert counts.min() >= 1
        assert counts.max() <= sides.patches**2
    for indices in (drawn.context.indices, drawn.target.indices):
        assert indices.min() >= 0
        assert indices.max() < sides.patches**2
    assert drawn.context.counts().float().mean() > 0.1 * sides.patches**2


@pytest.mark.parametrize("position", ENCODER_POSITIONS)
@pytest.mark.parametrize("sides", GRIDS, ids=str)
def test_every_position_tells_all_patches_apart(sides: Sides, position: str) -> None:
    grid, entry = Grid(sides.patches, sides.patches), POSITIONS.get(position)
    built = entry.component(entry.params_type(), grid, 16, 2)
    for parameter in built.parameters():
        torch.nn.init.normal_(parameter, generator=torch.Generator().manual_seed(0))
    everywhere = torch.arange(grid.num_patches)[None]
    added, rotation = built.add(torch.zeros(1, grid.num_patches, 16), everywhere)[0], built.rotation(everywhere)
    told = added if rotation is None else torch.cat([each[0, 0] for each in rotation], dim=-1)
    distances = torch.cdist(told, told, compute_mode="donot_use_mm_for_euclid_dist") + torch.eye(grid.num_patches)
    assert distances.min() > 0.01
    if position == "sincos":
        assert torch.allclose(added, sincos_2d(grid, 16).float())


@pytest.mark.parametrize(("of_encoder", "of_predictor"), PAIRS)
@pytest.mark.parametrize("sides", GRIDS, ids=str)
def test_a_step_trains_every_weight_on_the_grid(
    sides: Sides, of_encoder: str, of_predictor: str, tmp_path: Path
) -> None:
    positions = (f"encoder.position={of_encoder}", f"predictor.position={of_predictor}")
    pipeline = sides.load(tmp_path, *positions).pipeline
    model = build_model(pipeline, 1)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    generator = torch.Generator().manual_seed(0)
    masks = build_sampler(pipeline).sample(2, generator)
    images = torch.randn(2, 1, sides.image, sides.image, generator=generator)
    step = build_step(pipeline, model, Compute(torch.device("cpu"), "fp32", False), steps_per_epoch=1)
    step.numbers.set(1)
    statistics = step(images, masks, pack_exactly)
    assert statistics.refused == 0
    assert statistics.loss > 0
    unchanged = {name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])}
    assert not unchanged
