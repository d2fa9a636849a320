"""Attentive classifiers side by side: one learned query attends to the patch tokens of an image.

```
token x_n [D] -> score of head h: q_h . (W_k,h x_n) / sqrt(E), softmax over patches: a_hn
pooled_h = sum_n a_hn W_v,h x_n [E] -> heads side by side [H * E] -> batch norm without affine -> linear -> logits
```
There is one query for all images, so q_h W_k,h is one vector, and W_v is applied to what was pooled: the same numbers
as of `torch.nn.MultiheadAttention` with an output projection of ones, without projecting every token.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from jepa_lab.probes.batch_norm import BatchNorm

_QUERY_STD = 0.02
_NAMES = ("query", "key", "value", "weight", "bias")


@dataclass(frozen=True)
class TokenScaling:
    """How tokens are scaled before they are attended to; a linear map, so it changes nothing that can be learned.

    Attributes:
        mean: [D] of all tokens' means over an image.
        keys: [D], factors that give each feature of the tokens the same variance.
        values: [D, D], to uncorrelated features of the mean over an image, see `jepa_lab.probes.decorrelation`.
    """

    mean: Tensor
    keys: Tensor
    values: Tensor


class AttentiveHeads:
    """G attentive classifiers that begin alike; none of them disturbs another, even where one diverges.

    At the beginning all patches get nearly the same weight: that is the mean over patches which other probes see.

    Args:
        num_settings: G. num_heads: H, of the attention. num_classes: C.
        scaling: of tokens of width D. Each head's keys and values have width E = D / H, rounded up.
        generator: of the CPU, for the initial values.
    """

    def __init__(
        self, num_settings: int, num_heads: int, num_classes: int, scaling: TokenScaling, generator: torch.Generator
    ) -> None:
        width, device = len(scaling.mean), scaling.mean.device
        head_width = -(-width // num_heads)
        self.scaling = scaling
        query = _QUERY_STD * torch.randn(num_heads, head_width, generator=generator)
        key = torch.randn(num_heads, head_width, width, generator=generator) / width**0.5
        value = nn.init.orthogonal_(torch.empty(width, num_heads * head_width), generator=generator)
        value = value.unflatten(1, (num_heads, head_width)).permute(1, 0, 2)
        weight, bias = torch.zeros(num_heads * head_width, num_classes), torch.zeros(num_classes)
        begins = (query, key, value, weight, bias)  # [H, E], [H, E, D], [H, D, E], [H * E, C], [C]
        self.copies = {
            name: [begin.to(device, copy=True).requires_grad_() for _ in range(num_settings)]
            for name, begin in zip(_NAMES, begins, strict=True)
        }
        self.norm = BatchNorm(num_settings * num_heads * head_width, device)

    def parameter_groups(self, setting: int) -> tuple[list[Tensor], list[Tensor]]:
        """The parameters of one classifier: those that decay, and those that do not."""
        query, key, value, weight, bias = (self.copies[name][setting] for name in _NAMES)
        return [query, key, value, weight], [bias]

    def weights(self, tokens: Tensor) -> Tensor:
        """How much of each patch every head takes, [b, G, H, N]; they sum to 1 over patches.

        Args:
            tokens: [b, N, D].
        """
        query, key = self._stacked("query"), self._stacked("key")  # [G, H, E], [G, H, E, D]
        directions = torch.einsum("ghe,ghed->ghd", query, key) * (self.scaling.keys / query.shape[-1] ** 0.5)
        return torch.einsum("bnd,ghd->bghn", tokens - self.scaling.mean, directions).softmax(dim=-1)

    def pooled(self, tokens: Tensor) -> Tensor:
        """What the attention reads, heads side by side, [b, G, H * E]."""
        values = torch.einsum("df,ghfe->ghde", self.scaling.values, self._stacked("value"))  # [G, H, D, E]
        mixed = torch.einsum("bghn,bnd->bghd", self.weights(tokens), tokens - self.scaling.mean)
        return torch.einsum("bghd,ghde->bghe", mixed, values).flatten(2)

    def logits(self, tokens: Tensor, *, training: bool) -> Tensor:
        """Tokens [b, N, D] -> [G, b, C].

        Args:
            training: normalise by the statistics of these images, and remember them; else by what was remembered.
        """
        pooled = self.pooled(tokens)
        normalised = self.norm(pooled.flatten(1), training=training).unflatten(1, pooled.shape[1:])  # [b, G, H * E]
        return torch.einsum("bgf,gfc->gbc", normalised, self._stacked("weight")) + self._stacked("bias")[:, None]

    def _stacked(self, name: str) -> Tensor:
        """Those of all settings, [G, ...]."""
        return torch.stack(self.copies[name])
