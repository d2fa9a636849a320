"""Parts of the loop: masks of a fixed shape for a compiled step."""

from __future__ import annotations

from pathlib import Path

import torch

from jepa_lab.build import build_sampler
from tests.integration.pipelines import load_tiny


def test_masks_of_a_compiled_step_keep_their_shape_on_a_cpu_and_others_are_trimmed(tmp_path: Path) -> None:
    sampler = build_sampler(load_tiny(tmp_path, "masker.num_targets=3").pipeline)

    def shapes(compiled: bool) -> set[tuple[torch.Size, torch.Size]]:
        generator = torch.Generator().manual_seed(0)
        drawn = [sampler.sample(2, generator, compiled=compiled) for _ in range(30)]
        return {(masks.context.shape, masks.target.shape) for masks in drawn}

    assert len(shapes(compiled=True)) == 1
    assert len(shapes(compiled=False)) > 1
