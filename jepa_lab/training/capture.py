"""The whole step as one CUDA graph: after the first step the host only says "again".

Source: the recipe of PyTorch's notes on CUDA graphs. Differs: what is run before the capture is undone, so that a run
that was killed and resumed takes the same steps as one that was not.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from jepa_lab.data.order import Batch
from jepa_lab.errors import DeviceError, Key
from jepa_lab.training.checkpoint import optimizer_tensors
from jepa_lab.training.optimizer import allow_capture
from jepa_lab.training.step_watch import objections_to_capture
from jepa_lab.training.whole_step import StepOutcome, WholeStep

logger = logging.getLogger(__name__)

_WARM_UPS = 3

Work = Callable[[], StepOutcome]


class Capturer(Protocol):
    """Turns work on a device into a graph that can be replayed."""

    def warm_up(self, work: Work) -> None:
        """Run the work until everything is there that it makes only once: workspaces, compiled kernels."""

    def capture(self, work: Work, generators: list[torch.Generator]) -> tuple[StepOutcome, Callable[[], None]]:
        """Record the work without executing it.

        Args:
            generators: which every replay must advance.
        Returns:
            The tensors that each replay writes to, and what replays.
        """


@dataclass(frozen=True)
class CudaGraphs:
    """Captures CUDA graphs; the memory of a graph is its own."""

    device: torch.device

    def warm_up(self, work: Work) -> None:
        stream, current = torch.cuda.Stream(self.device), torch.cuda.current_stream(self.device)
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                work()
        current.wait_stream(stream)

    def capture(self, work: Work, generators: list[torch.Generator]) -> tuple[StepOutcome, Callable[[], None]]:
        graph = torch.cuda.CUDAGraph()
        for generator in generators:
            graph.register_generator_state(generator)
        # Other threads may go on copying images meanwhile.
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            outcome = work()
        return outcome, graph.replay


@dataclass
class CapturedStep(WholeStep):
    """A step that is captured when it is first taken, and replayed from then on.

    What cannot be captured is told once and runs as it is.

    Attributes:
        required: whether it is an error if the step cannot be captured.
    """

    capturer: Capturer
    required: bool

    def __post_init__(self) -> None:
        self._take: Callable[[Batch], StepOutcome] | None = None
        self._captured = False

    @property
    def captured(self) -> bool:
        return self._captured

    def __call__(self, batch: Batch, number: int) -> StepOutcome:
        self.step.numbers.set(number)
        if self._take is None:
            self._take = self._prepare(batch)
        return self._take(batch)

    def _prepare(self, batch: Batch) -> Callable[[Batch], StepOutcome]:
        """Rehearse the step and capture it; nothing of the run has changed afterwards.

        Raises:
            DeviceError: it cannot be captured, and must be.
        """
        buffer = batch.clone()

        def work() -> StepOutcome:
            return self.on_device(buffer)

        with self._undone(), self.step.uncompiled():
            objections = objections_to_capture(work)
        if objections:
            self._object(objections)
            return self.on_device
        with self._undone():
            self.capturer.warm_up(work)
        allow_capture(self.step.optimizer)
        with self._undone():
            outcome, replay = self.capturer.capture(work, self.batches.generators())
        self._captured = True
        logger.info("the whole step is captured as one graph")

        def take(batch: Batch) -> StepOutcome:
            buffer.copy_(batch)
            replay()
            return outcome

        return take

    def _object(self, objections: list[str]) -> None:
        reasons = "; ".join(objections)
        if self.required:
            raise DeviceError(
                f"training.capture=on: the step cannot be captured as a graph: {reasons}; use training.capture=auto, "
                "which then runs it uncaptured, or change that component",
                keys=[Key("capture", "training")],
            )
        logger.warning("the step is not captured as a graph, which makes it slower: %s", reasons)

    @contextmanager
    def _undone(self) -> Iterator[None]:
        """Whatever happens within, the state of the run is then as it was before."""
        tensors = {name: tensor.clone() for name, tensor in self._tensors().items()}
        generators = [(generator, generator.get_state()) for generator in self.batches.generators()]
        yield
        for name, tensor in self._tensors().items():
            if name in tensors:
                tensor.copy_(tensors[name])
            else:
                tensor.zero_()  # moments and step counts, which the optimizer makes at its first step
        for generator, state in generators:
            generator.set_state(state)

    def _tensors(self) -> dict[str, Tensor]:
        """All that a step changes in place, by name."""
        step, model = self.step, self.step.model
        parts: dict[str, dict[str, Tensor]] = {
            "parameters": dict(model.named_parameters()),
            "buffers": dict(model.named_buffers()),
            "optimizer": optimizer_tensors(model, step.optimizer),
            "gate": step.gate.state(),
            "sums": self.sums.state(),
        }
        return {f"{part}/{name}": each.detach() for part, held in parts.items() for name, each in held.items()}
