"""Keys that fill up the CPU's vectors change the speed of attention, not its result."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from jepa_lab.models.aligned_keys import align_keys
from jepa_lab.models.sequences import PaddedSequences
from jepa_lab.models.vit import Attention


def _plain(attention: Attention, tokens: Tensor, attend: Tensor | None) -> Tensor:
    parts = attention.qkv(tokens).unflatten(-1, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
    return attention.proj(F.scaled_dot_product_attention(*parts, attn_mask=attend).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("num_keys", [1, 2, 11, 15, 16, 17, 28, 31, 33, 47])
def test_output_and_gradients_are_those_of_the_keys_as_they_are(num_keys: int, padded: bool) -> None:
    generator = torch.Generator().manual_seed(num_keys)
    attention = Attention(24, 3).double()
    tokens = torch.randn(4, num_keys, 24, dtype=torch.float64, generator=generator).requires_grad_()
    counts = torch.randint(1, num_keys + 1, (4, 1), generator=generator)
    sequences = PaddedSequences.of(torch.arange(num_keys) < counts if padded else None, (4, num_keys))
    wanted = [tokens, *attention.parameters()]
    here = attention(tokens.flatten(0, 1), None, sequences).unflatten(0, (4, num_keys))
    plain = _plain(attention, tokens, sequences.attended)
    assert torch.allclose(here, plain, rtol=0, atol=1e-14)
    upstream = torch.randn(here.shape, dtype=torch.float64, generator=generator)
    gradients = [torch.autograd.grad(out, wanted, upstream) for out in (here, plain)]
    assert all(torch.allclose(one, other, rtol=0, atol=1e-13) for one, other in zip(*gradients, strict=True))


@pytest.mark.parametrize(("num_keys", "aligned"), [(7, 7), (8, 16), (15, 16), (16, 16), (17, 17), (27, 27), (28, 32)])
def test_keys_are_added_where_that_pays(num_keys: int, aligned: int) -> None:
    key = torch.randn(2, num_keys, 3, 8)
    for part in align_keys(key, key, None)[:2]:
        assert part.shape == (2, aligned, 3, 8)


def test_other_devices_take_the_keys_as_they_are() -> None:
    key = torch.empty(2, 15, 3, 8, device="meta")
    assert align_keys(key, key, None) == (key, key, None)
