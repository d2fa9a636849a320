"""Loss and gradients do not depend on how the tokens of a batch lie in memory, whatever the model is made of."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from jepa_lab.build import build_drop_path, build_model, build_sampler
from jepa_lab.maskers.base import Masks
from jepa_lab.models.packing import PackedSizes, Packer, Packing, WithoutPadding, pack_into, pad
from jepa_lab.registry import FAMILIES
from tests.integration.pipelines import load_tiny
from tests.packers import pack_exactly
from tests.positions import PAIRS
from tests.unit.models.test_packing import kernel_for_variable_lengths

CPU = torch.device("cpu")
SIDE, BATCH = 16, 6


def with_room(masks: Masks, num_patches: int, level: int = 0, *, has_kernel: bool) -> Packing:
    sizes = PackedSizes(*(int(size) + 17 for size in PackedSizes.of(masks)))
    return pack_into(masks, num_patches, sizes, has_kernel=has_kernel)


WAYS: dict[str, Packer] = {
    "exact": pack_exactly,
    "exact, padded for attention": WithoutPadding(1, 1),
    "exact, as it pays": WithoutPadding(10**6, 1),
    "fixed, padded for attention": partial(with_room, has_kernel=False),
    "fixed, with a kernel": partial(with_room, has_kernel=True),
}


def outcomes(folder: Path, *overrides: str) -> dict[str, dict[str, Tensor]]:
    """Loss, terms and every gradient, by the way tokens are packed; padded first."""
    pipeline = load_tiny(folder, f"data.image_size={SIDE}", f"training.batch_size={BATCH}", *overrides).pipeline
    model = build_model(pipeline, 1).double()
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(BATCH, 1, SIDE, SIDE, dtype=torch.float64, generator=generator)

    def some(count: int) -> Iterator[Tensor]:
        yield images.repeat(8, 1, 1, 1).float()[:count] + torch.randn(min(count, 8 * BATCH), 1, SIDE, SIDE)

    model.target.fit(some)
    masks = build_sampler(pipeline).sample(BATCH, generator, fixed_shapes=True)
    drop_path = build_drop_path(pipeline, CPU)
    factors = None if drop_path is None else drop_path.draw(BATCH).double()
    found = {}
    for name, packer in {"padded": pad, **WAYS}.items():
        model.zero_grad()
        out = model(images, masks, None, factors, model.pack(masks, packer))
        out.loss.backward()
        gradients = {each: p.grad for each, p in model.named_parameters() if p.grad is not None}
        assert gradients
        found[name] = {"loss": out.loss.detach(), **{k: v.detach() for k, v in out.terms.items()}, **gradients}
    return found


FAMILIES_IN_THE_MODEL = {
    "downsampling": "hierarchy={{num_levels: 2, downsampling: {}, skip_connections: true}}",
    "loss": "loss={}",
    "regularizer": "regularizer={}",
    "target": "target={}",
}
MANY_LENGTHS = ("masker=random", "masker.min_context_patches=1")
CASES = [
    *(
        (f"masker={masker}", f"context_batching={batching}", f"predictor.target_sequences={sequences}")
        for masker in FAMILIES["masker"].names()
        for batching in ("pad", "subset", "prefix")
        for sequences in ("separate", "joint")
    ),
    *(
        ("masker=multi_block", override.format(name))
        for family, override in FAMILIES_IN_THE_MODEL.items()
        for name in FAMILIES[family].names()
    ),
    *(
        ("masker=multi_block", f"encoder.position={of_encoder}", f"predictor.position={of_predictor}")
        for of_encoder, of_predictor in PAIRS
    ),
    ("masker=multi_context", "hierarchy.num_levels=3", "regularizer=vicreg", "encoder.position=rope"),
    ("masker=multi_block", "hierarchy={num_levels: 3, predictor: shared_level_tokens}", "predictor.position=learned"),
    ("masker=multi_block", "target={name: features, encode: target_patches_only, normalization: batch_norm}"),
    ("masker=multi_block", "encoder.drop_path_rate=0.5", "encoder.size.depth=3", "encoder.layer_scale=0.1"),
    ("masker=multi_block", "training.activation_checkpointing=true", "predictor.size.depth=2"),
]


@pytest.mark.parametrize("overrides", CASES, ids=" ".join)
def test_packed_and_padded_tokens_give_the_same_loss_and_gradients(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, overrides: tuple[str, ...]
) -> None:
    varlen = pytest.importorskip("torch.nn.attention.varlen")
    monkeypatch.setattr(varlen, "varlen_attn", kernel_for_variable_lengths)
    found = outcomes(tmp_path, *overrides)
    padded = found.pop("padded")
    for way, packed in found.items():
        assert packed.keys() == padded.keys()
        for name, value in packed.items():
            scale = max(1e-6, float(padded[name].abs().max()))
            assert float((value - padded[name]).abs().max()) <= 1e-10 * scale, (way, name)
