"""Drawing an image's masks again until they satisfy the settings, without a question to the device after each draw."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from jepa_lab.errors import RunStopped
from jepa_lab.maskers.base import LEAST_SUCCESS

MISS_PROBABILITY = 1e-12
"""Enough candidates are drawn at once that an image lacks a good one with at most this probability."""
MAX_CANDIDATES = 16
"""More candidates than this are drawn in rounds, with a look at the outcome after each."""
MAX_ROUNDS = 400


def failure_rate(successes: int, draws: int) -> float:
    """Upper estimate of the share of draws that fail, from a sample of them."""
    # No failure in n draws still allows a rate of 3/n (at 95% confidence).
    return min((draws - successes + 3) / draws, 1 - LEAST_SUCCESS)


class Redraw:
    """The first of many independent draws that is good, for each image.

    Redrawing in a loop would ask the device after each draw whether to go on, and so stall it every step.
    Drawing all candidates at once and keeping the first good one is the same distribution.

    Args:
        failure: upper estimate of the probability that a draw is not good.
        complaint: the end of the message "... draws" where no draw of an image was good.
        max_candidates: drawn at once; where that is too few, rounds follow.
    """

    def __init__(self, failure: float, complaint: str, max_candidates: int = MAX_CANDIDATES) -> None:
        candidates = math.ceil(math.log(MISS_PROBABILITY) / math.log(failure))
        self.num_candidates = min(candidates, max_candidates)
        self.must_look = candidates > max_candidates
        self._complaint = complaint

    def draw(self, batch_size: int, candidates: Callable[[int], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """Good draws of `batch_size` images; waits for the device only where many draws fail (`must_look`).

        Args:
            candidates: draws that many images: first whether each is good [images] bool, then its parts
                [images, ...].
        Returns:
            The parts, [B, ...] each.
        Raises:
            RunStopped: after `MAX_ROUNDS`, which a check at construction makes practically impossible.
        """
        is_good, parts = self._first_good(batch_size, candidates)
        if not self.must_look:
            return parts
        for _ in range(MAX_ROUNDS):
            if bool(is_good.all()):
                return parts
            is_good_now, again = self._first_good(batch_size, candidates)
            parts = tuple(
                torch.where(is_good.reshape(-1, *[1] * (old.dim() - 1)), old, new)
                for old, new in zip(parts, again, strict=True)
            )
            is_good = is_good | is_good_now
        raise RunStopped(f"{MAX_ROUNDS * self.num_candidates} draws {self._complaint}")

    def _first_good(
        self, batch_size: int, candidates: Callable[[int], tuple[Tensor, ...]]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Of several candidates the first good one, and which images [B] had one."""
        shape = (self.num_candidates, batch_size)
        good, *parts = (part.unflatten(0, shape) for part in candidates(self.num_candidates * batch_size))
        first = good.int().argmax(dim=0)  # [B]
        image = torch.arange(batch_size, device=first.device)
        return good.any(dim=0), tuple(part[first, image] for part in parts)
