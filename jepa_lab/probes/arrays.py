"""What the closed forms and scikit-learn's estimators of the probes compute on: numpy, or tensors on a GPU."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

import jepa_lab

logger = logging.getLogger(__name__)

CPU = torch.device("cpu")
_VALUES_FOR_THREADS = 1 << 22
"""Images times features from which on several threads are worth it."""
_FIRST_WITH_TENSORS = (1, 9)
"""The first scikit-learn whose LogisticRegression takes tensors."""


def double_device(device: torch.device) -> torch.device:
    """The device, or the CPU where the device has no double precision (Apple's)."""
    return CPU if device.type == "mps" else device


@dataclass(frozen=True)
class EstimatorArrays:
    """What scikit-learn's estimators are given, and compute with.

    Attributes:
        device: of the tensors; None for numpy's arrays.
    """

    device: torch.device | None = None

    def of(self, tensor: Tensor) -> Any:
        """A tensor on the CPU as an estimator takes it; in numpy's case it shares its memory."""
        return tensor.numpy() if self.device is None else tensor.to(self.device)

    def to_numpy(self, array: Any) -> np.ndarray:
        """What an estimator gave back."""
        return array if self.device is None else array.cpu().numpy()

    @contextlib.contextmanager
    def computing(self, num_values: int) -> Iterator[None]:
        """The context for everything that an estimator does with them.

        Few values are computed on one thread: the BLAS threads of numpy and scipy wait for each other by spinning, at
        every one of some thousand small products, and where other processes want the cores, too (a sweep), a fit of
        two seconds took minutes. Many values are computed on as many threads as PyTorch has: `training.num_threads`
        holds for probes, too.

        Args:
            num_values: images times features.
        """
        import sklearn
        from threadpoolctl import threadpool_limits

        threads = 1 if num_values < _VALUES_FOR_THREADS else torch.get_num_threads()
        dispatch = sklearn.config_context(array_api_dispatch=self.device is not None)
        with threadpool_limits(threads, user_api="blas"), dispatch:
            yield


NUMPY = EstimatorArrays()


def estimator_arrays(device: torch.device) -> EstimatorArrays:
    """Tensors on a GPU where scikit-learn can fit on them, else numpy; the log says why where that is a loss.

    On a CPU numpy it is: a fit on tensors does the same arithmetic, and measured no faster.
    """
    if device.type != "cuda":
        return NUMPY
    obstacle = _obstacle()
    if obstacle is not None:
        _tell_once(obstacle)
        return NUMPY
    return EstimatorArrays(device)


def _obstacle() -> str | None:
    """Why scikit-learn cannot fit a logistic regression on tensors here, or None."""
    import sklearn

    if tuple(int(part) for part in sklearn.__version__.split(".")[:2]) < _FIRST_WITH_TENSORS:
        return f"scikit-learn {sklearn.__version__} cannot fit it on a GPU; 1.9 or newer can"
    if jepa_lab.SCIPY_CAME_FIRST:
        return (
            f"scipy was imported before jepa_lab, without {jepa_lab.SCIPY_SWITCH}=1 in the environment; set it, or "
            "import jepa_lab first"
        )
    if os.environ.get(jepa_lab.SCIPY_SWITCH) != "1":
        return f"{jepa_lab.SCIPY_SWITCH}={os.environ.get(jepa_lab.SCIPY_SWITCH, '')} is set; set it to 1, or unset it"
    return None


@functools.cache
def _tell_once(obstacle: str) -> None:
    logger.warning("the logistic regression of the probes runs on the CPU: %s", obstacle)
