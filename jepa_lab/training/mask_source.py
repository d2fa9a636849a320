"""Where the masks of a step come from, and how their tokens are laid out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor

from jepa_lab.maskers.base import Masks
from jepa_lab.models.ladder import Ladder
from jepa_lab.models.packing import Packer


@dataclass(frozen=True)
class DrawnMasks:
    """The masks of a batch.

    Attributes:
        packer: how their tokens are laid out.
        shape: steps whose masks have the same one differ in values alone.
    """

    masks: Masks
    packer: Packer
    shape: int = 0


class MaskSource(ABC):
    """Gives the masks of one step after the other.

    Attributes:
        generator: on the device, of this purpose alone.
    """

    generator: torch.Generator

    @abstractmethod
    def draw(self) -> Masks:
        """Masks of a batch: what the generator says next."""

    @abstractmethod
    def next(self) -> DrawnMasks:
        """The masks of the next step."""

    def state(self) -> Tensor:
        """The generator's state before the masks that `next` gives."""
        return self.generator.get_state()

    def restore(self, state: Tensor) -> None:
        """Give the masks that followed a state."""
        self.generator.set_state(state)


@dataclass
class DrawnNow(MaskSource):
    """Masks that are drawn when they are wanted.

    Attributes:
        sample: draws masks of a batch.
    """

    sample: Callable[[torch.Generator], Masks]
    generator: torch.Generator
    packer: Packer

    def draw(self) -> Masks:
        return self.sample(self.generator)

    def next(self) -> DrawnMasks:
        return DrawnMasks(self.draw(), self.packer)


@dataclass
class DrawnAhead(MaskSource):
    """Masks that are drawn a step before they are wanted, so that the host knows by then how many tokens they have.

    The device draws the masks of the next step before it computes this one. The host reads the counts when it comes to
    the next step: they are there as soon as the device has begun this one, so the device never waits.

    Attributes:
        sample: draws masks of a batch, of fixed shapes.
        needed: rows that the buffers of masks need, [n] int64 on the device, see `needed_rows`.
        packers: for each rung of the ladder, lays tokens out in its buffers.
    """

    sample: Callable[[torch.Generator], Masks]
    generator: torch.Generator
    needed: Callable[[Masks], Tensor]
    ladder: Ladder
    packers: Sequence[Packer]

    def __post_init__(self) -> None:
        with self._generator_kept():
            masks = self.draw()
        self._now, self._ahead = masks.buffer(), masks.buffer()
        self._rows = self.needed(masks).cpu()
        if self.generator.device.type == "cuda":
            self._rows = self._rows.pin_memory()
        self._known = Moment(self.generator.device)
        self._fill: Callable[[], object] = self.draw_ahead
        self._before: Tensor | None = None  # the generator's state before the masks ahead were drawn, if they were

    def draw(self) -> Masks:
        return self.sample(self.generator)

    def next(self) -> DrawnMasks:
        if self._before is None:
            self._look_ahead()
        self._known.wait()
        rung = self.ladder.rung(self._rows.tolist())
        self._now.copy_(self._ahead)
        self._look_ahead()
        return DrawnMasks(self._now, self.packers[rung], rung)

    def state(self) -> Tensor:
        return self.generator.get_state() if self._before is None else self._before

    def restore(self, state: Tensor) -> None:
        self.generator.set_state(state)
        self._before = None

    def tensors(self) -> list[Tensor]:
        """What is ready, on the device and on the host."""
        self._known.wait()
        return [*self._now.tensors(), *self._ahead.tensors(), self._rows]

    def replace_drawing(self, replay: Callable[[], object]) -> None:
        """Draw by replaying a graph of `draw_ahead` from now on."""
        self._fill = replay

    def _look_ahead(self) -> None:
        self._before = self.generator.get_state()
        self._fill()
        self._known.set()

    def draw_ahead(self) -> None:
        """Draw the masks of the next step, and tell the host how many rows they need; the host does not wait."""
        masks = self.draw()
        self._ahead.copy_(masks)
        self._rows.copy_(self.needed(masks), non_blocking=True)

    @contextmanager
    def _generator_kept(self) -> Iterator[None]:
        state = self.generator.get_state()
        yield
        self.generator.set_state(state)


class Moment:
    """A moment in the work of a device that the host can wait for; on a CPU work is done when the call returns."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._event = torch.cuda.Event() if device.type == "cuda" else None

    def set(self) -> None:
        """What was asked of the device so far."""
        if self._event is not None:
            self._event.record(torch.cuda.current_stream(self._device))  # it need not be the current device

    def wait(self) -> None:
        """Until that is done."""
        if self._event is not None:
            self._event.synchronize()
