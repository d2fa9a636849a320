"""Patch tokens of all images that a probe needs: in a file where they are few enough, else computed again and again."""

from __future__ import annotations

import contextlib
import itertools
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from jepa_lab.data.base import ImageSplit
from jepa_lab.data.order import BatchOrder
from jepa_lab.probes.feature_file import stored_features
from jepa_lab.probes.subject import Subject
from jepa_lab.probes.training_images import TrainingImages
from jepa_lab.randomness import build_generator

_BYTES_IN_A_FILE = 1 << 34
"""Most tokens that are kept, 16 GiB: those of CIFAR, not of ImageNet."""
_SHARE_OF_THE_DISK = 0.5
"""And no more than this share of what is free."""

NextBatch = Callable[[], tuple[Tensor, Tensor]]
"""Gives tokens [B, N, D'] on the device, and the numbers of their images, [B] int64 on the CPU."""


class Tokens(ABC):
    """Tokens of the images of several splits, numbered one after another, [N, D'] float32 each."""

    @abstractmethod
    def of(self, numbers: Tensor) -> Iterator[Tensor]:
        """Those of images in this order, one batch after another, [b, N, D'] on the device.

        Args:
            numbers: [n] int64, increasing.
        """

    @abstractmethod
    def batches(self, num_splits: int, batch_size: int, name: str) -> contextlib.AbstractContextManager[NextBatch]:
        """Endless batches of the images of the first splits, in random order.

        Args:
            batch_size: B, at most the number of these images.
            name: with the run's seed it decides the order, which is the same wherever the tokens are.
        """


@contextlib.contextmanager
def tokens_of_splits(subject: Subject, splits: Sequence[ImageSplit]) -> Iterator[Tokens]:
    """The tokens of these splits.

    Raises:
        RunStopped: see `stored_features`; or a token is not finite.
    """
    (one,) = subject.token_batches(splits[0].images[torch.arange(1)])
    if one.nbytes * sum(map(len, splits)) > min(_BYTES_IN_A_FILE, _SHARE_OF_THE_DISK * _free_bytes(subject.scratch)):
        yield _ComputedTokens(subject, splits)
        return
    batches = itertools.chain.from_iterable(subject.token_batches(split.images) for split in splits)
    with stored_features((batch.flatten(1).cpu() for batch in batches), subject.scratch) as rows:
        yield _StoredTokens(subject, splits, rows.reshape(-1, *one.shape[1:]))


def _free_bytes(folder: Path) -> int:
    """On the disk of a folder that need not exist."""
    return shutil.disk_usage(next(each for each in (folder, *folder.absolute().parents) if each.exists())).free


class _StoredTokens(Tokens):
    """In a file.

    Args:
        stored: [n, N, D'].
    """

    def __init__(self, subject: Subject, splits: Sequence[ImageSplit], stored: np.ndarray) -> None:
        self.subject, self.splits, self.stored = subject, splits, stored

    def of(self, numbers: Tensor) -> Iterator[Tensor]:
        return map(self._read, numbers.split(self.subject.batch_size))

    @contextlib.contextmanager
    def batches(self, num_splits: int, batch_size: int, name: str) -> Iterator[NextBatch]:
        total = sum(map(len, self.splits[:num_splits]))
        order = BatchOrder(total, batch_size, build_generator(self.subject.seed, f"{name} order"))

        def take() -> tuple[Tensor, Tensor]:
            numbers = order.next().sort().values  # in the order of the file
            return self._read(numbers), numbers

        yield take

    def _read(self, numbers: Tensor) -> Tensor:
        return torch.from_numpy(self.stored[numbers.numpy()]).to(self.subject.device)


class _ComputedTokens(Tokens):
    """Computed by the encoder whenever they are needed."""

    def __init__(self, subject: Subject, splits: Sequence[ImageSplit]) -> None:
        self.subject, self.splits = subject, splits

    def of(self, numbers: Tensor) -> Iterator[Tensor]:
        start = 0
        for split in self.splits:
            rows = numbers[(numbers >= start) & (numbers < start + len(split))] - start
            start += len(split)
            if len(rows):
                yield from self.subject.token_batches(split.images[rows])

    @contextlib.contextmanager
    def batches(self, num_splits: int, batch_size: int, name: str) -> Iterator[NextBatch]:
        images = TrainingImages(self.splits[:num_splits], batch_size, None, self.subject, name)

        def take() -> tuple[Tensor, Tensor]:
            batch, numbers = images.next()
            return self.subject.tokens_of(batch), numbers

        with contextlib.closing(images):
            yield take
