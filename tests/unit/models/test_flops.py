"""Closed-form counts equal those of PyTorch's own counter."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from jepa_lab.build import build_model, build_sampler
from jepa_lab.grid import Grid
from jepa_lab.inspection import flops_per_image, sample_statistics
from jepa_lab.losses.l2 import L2Loss, L2Params
from jepa_lab.maskers.base import Masks
from jepa_lab.maskers.patches import Patches
from jepa_lab.models.flops import step_flops, unread_flops
from jepa_lab.models.ijepa import IJepa
from jepa_lab.models.predictor import Predictor
from jepa_lab.models.sizes import ModelSize
from jepa_lab.models.vit import VisionTransformer
from jepa_lab.positions.sincos import SinCosPosition
from jepa_lab.registry import ComponentParams
from jepa_lab.targets.base import TargetInputs
from jepa_lab.targets.features import FeaturesParams, FeaturesTarget
from tests.integration.pipelines import load_tiny


def test_step_flops_equal_the_count_of_torch() -> None:
    grid, size, narrow = Grid(8, 8), ModelSize(24, 2, 3), ModelSize(12, 1, 3)
    encoder = VisionTransformer(grid, 2, 3, size, SinCosPosition(ComponentParams(), grid, 24, 3))
    predictor = Predictor(24, narrow, SinCosPosition(ComponentParams(), grid, 12, 3))
    model = IJepa(encoder, predictor, FeaturesTarget(FeaturesParams(), TargetInputs(24, 2, 2, 3)), L2Loss(L2Params()))
    # Counts of patches that fill the vectors of a CPU, so that attention adds no keys (`align_keys`).
    masks = Masks(Patches(torch.arange(32).expand(2, 1, 32)), Patches(torch.arange(32, 48).expand(2, 3, 16)))
    counter = FlopCounterMode(display=False)
    with counter, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        model(torch.rand(2, 3, 16, 16), masks).loss.backward()
    unread = 3 * unread_flops(narrow, 3 * 32)  # the context's tokens of every pair, forward and backward
    unread += unread_flops(size, 64 - 16)  # the patches of the whole image that are no target
    ours = step_flops(size, narrow, 12, 64, 32, 16, 1, 3) - unread
    # The first layer needs no gradient of its input, so the exact count is a little below three forward passes.
    assert counter.get_total_flops() / 2 == pytest.approx(ours, rel=0.02)


@pytest.mark.parametrize("downsampling", ["conv", "pooling"])
def test_operations_of_a_hierarchy_equal_the_count_of_torch(tmp_path: Path, downsampling: str) -> None:
    overrides = ("data.image_size=16", "context_batching=prefix", "masker=random", "training.batch_size=4")
    levels = f"hierarchy={{num_levels: 3, downsampling: {downsampling}}}"
    pipeline = load_tiny(tmp_path, *overrides, levels).pipeline
    model = build_model(pipeline, 1)
    masks = build_sampler(pipeline).sample(4, torch.Generator().manual_seed(pipeline.seed))
    counter = FlopCounterMode(display=False)
    with counter, torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        model(torch.rand(4, 1, 16, 16), masks).loss.backward()
    # Torch computes the padding of coarse cells, too; the random masker's fine patches have none here.
    ours = flops_per_image(pipeline, 1, sample_statistics(pipeline))
    assert counter.get_total_flops() / 4 == pytest.approx(ours, rel=0.25)
    flat = load_tiny(tmp_path, *overrides).pipeline
    assert ours > flops_per_image(flat, 1, sample_statistics(flat))
