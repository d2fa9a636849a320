"""Singular values of the features of many images, in bounded memory and double precision."""

from __future__ import annotations

import torch
from torch import Tensor

from jepa_lab.probes.arrays import double_device

_AT_ONCE = 4096


def singular_values(features: Tensor, device: torch.device, *, centred: bool) -> Tensor:
    """Singular values of a feature matrix, from the eigenvalues of its Gram matrix.

    The [D, D] Gram matrix is summed up over batches in double precision, so that no copy of all features is made. Of a
    singular value that is far below the largest one, s, some 1e-8 s is rounding.

    Args:
        features: [n, D], one row an image.
        device: where it is computed, if it has double precision; else on the CPU.
        centred: whether the mean over images is taken off first.
    Returns:
        [min(n, D)] float64 on the CPU, largest first.
    """
    num_images, width = features.shape
    device = double_device(device)
    shift = torch.zeros(width, dtype=torch.float64, device=device)
    if centred:
        for part in features.split(_AT_ONCE):
            shift += part.to(device, torch.float64).sum(dim=0)
        shift /= num_images
    if num_images < width:  # the other Gram matrix is smaller, and has the same eigenvalues but for zeros
        exact = features.to(device, torch.float64) - shift
        gram = exact @ exact.T
    else:
        gram = torch.zeros(width, width, dtype=torch.float64, device=device)
        for part in features.split(_AT_ONCE):
            exact = part.to(device, torch.float64) - shift
            gram.addmm_(exact.T, exact)
    return torch.linalg.eigvalsh(gram).flip(0).clamp_min(0).sqrt().cpu()


def effective_rank(sizes: Tensor) -> float:
    """The exponential of the entropy of the shares that directions have: how many there are, if all were equal.

    Args:
        sizes: of the directions, [k] float64, not negative: singular values, or eigenvalues.
    Returns:
        exp(-sum_k p_k log p_k) with p_k = size_k / sum_j size_j + 1e-7; 1 where all sizes are 0.
    """
    total = sizes.sum().clamp_min(torch.finfo(torch.float64).tiny)
    shares = sizes / total + _EPSILON
    return (-(shares * shares.log()).sum()).exp().item()


_EPSILON = 1e-7
"""RankMe's value for single precision."""
