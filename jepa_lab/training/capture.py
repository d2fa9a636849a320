"""The whole step as one CUDA graph: after the first step the host only says "again".

Source: the recipe of PyTorch's notes on CUDA graphs. Differs: what is run before the capture is undone, so that a run
that was killed and resumed takes the same steps as one that was not.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from jepa_lab.data.order import Batch
from jepa_lab.errors import DeviceError, Key
from jepa_lab.training.checkpoint import optimizer_tensors
from jepa_lab.training.mask_source import DrawnAhead, DrawnMasks
from jepa_lab.training.optimizer import capturable
from jepa_lab.training.step_watch import objections_to_capture
from jepa_lab.training.whole_step import StepOutcome, WholeStep

logger = logging.getLogger(__name__)

_WARM_UPS = 3

Result = TypeVar("Result")
Work = Callable[[], Result]


class Capturer(Protocol):
    """Turns work on a device into a graph that can be replayed."""

    def warm_up(self, work: Work[object]) -> None:
        """Run the work until everything is there that it makes only once: workspaces, compiled kernels."""

    def capture(self, work: Work[Result], generators: list[torch.Generator]) -> tuple[Result, Callable[[], None]]:
        """Record the work without executing it.

        Args:
            generators: which every replay must advance.
        Returns:
            What the work returned, the tensors that each replay writes to; and what replays.
        """


@dataclass(frozen=True)
class _Graph:
    """A captured step: what it leaves for the log, always in the same memory, and what replays it."""

    outcome: StepOutcome
    replay: Callable[[], None]


class CudaGraphs:
    """Captures CUDA graphs. Their memory is their own, and they share it: only one of them runs at a time."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._pool: Any = None

    def warm_up(self, work: Work[object]) -> None:
        stream, current = torch.cuda.Stream(self.device), torch.cuda.current_stream(self.device)
        stream.wait_stream(current)
        with torch.cuda.stream(stream):
            for _ in range(_WARM_UPS):
                work()
        current.wait_stream(stream)
        torch.cuda.synchronize(self.device)

    def capture(self, work: Work[Result], generators: list[torch.Generator]) -> tuple[Result, Callable[[], None]]:
        graph = torch.cuda.CUDAGraph()
        for generator in generators:
            graph.register_generator_state(generator)
        # A capture takes the stream of the current device. Other threads may go on copying images meanwhile.
        with (
            torch.cuda.device(self.device),
            torch.cuda.graph(graph, pool=self._pool, capture_error_mode="thread_local"),
        ):
            result = work()
        self._pool = graph.pool()
        return result, graph.replay


@dataclass
class CapturedStep(WholeStep):
    """A step that is captured when it is first taken, and replayed from then on.

    There is a graph for each shape that masks come in. What cannot be captured is told once and runs as it is.

    Attributes:
        required: whether it is an error if the step cannot be captured.
    """

    capturer: Capturer
    required: bool

    def __post_init__(self) -> None:
        self._graphs: dict[int, _Graph] = {}
        self._buffer: Batch | None = None  # the images of a captured step, always in the same memory
        self._captures: bool | None = None  # unknown before the first step

    @property
    def captured(self) -> bool:
        return bool(self._graphs)

    def __call__(self, batch: Batch, number: int) -> StepOutcome:
        drawn = self.prepared(number)
        if self._captures is None:
            self._buffer = batch.clone()
            self._captures = self._begin(drawn)
        if not self._captures:
            self._buffer = None
            return self.on_device(batch, drawn)
        assert self._buffer is not None, "made at the first step"
        self._buffer.copy_(batch)
        if drawn.shape not in self._graphs:
            self._graphs[drawn.shape] = self._captured(drawn)
        graph = self._graphs[drawn.shape]
        graph.replay()
        return graph.outcome

    def _begin(self, drawn: DrawnMasks) -> bool:
        """Rehearse a step, and capture the drawing of masks; whether steps can be captured.

        Raises:
            DeviceError: they cannot, and must be.
        """
        masks = self._masks()

        def rehearse() -> None:
            masks.draw_ahead()
            self._step_in_place(drawn)

        with self._undone(), self.step.uncompiled():
            objections = objections_to_capture(rehearse)
        if objections:
            self._object(objections)
            return False
        with self._undone():
            self.capturer.warm_up(masks.draw_ahead)
        with self._undone(), _capture_errors():
            _, replay = self.capturer.capture(masks.draw_ahead, [masks.generator])
        masks.replace_drawing(replay)
        return True

    def _captured(self, drawn: DrawnMasks) -> _Graph:
        """Capture a step; nothing of the run has changed afterwards."""

        def work() -> StepOutcome:
            return self._step_in_place(drawn)

        with self._undone():
            self.capturer.warm_up(work)
        with self._undone(), capturable(self.step.optimizer), _capture_errors():
            graph = _Graph(*self.capturer.capture(work, self.batches.generators()))
        logger.info("the whole step is captured as one graph%s", "" if not self._graphs else " for one more shape")
        return graph

    def _step_in_place(self, drawn: DrawnMasks) -> StepOutcome:
        """A step on the images of the buffer."""
        assert self._buffer is not None, "made at the first step"
        return self.on_device(self._buffer, drawn)

    def _masks(self) -> DrawnAhead:
        masks = self.batches.masks
        assert isinstance(masks, DrawnAhead), "whose masks are always in the same memory"
        return masks

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
        drawn = [(tensor, tensor.clone()) for tensor in self._masks().tensors()]
        tensors = {name: tensor.clone() for name, tensor in self._tensors().items()}
        drawing = [*self.batches.generators(), self._masks().generator]
        generators = [(generator, generator.get_state()) for generator in drawing]
        yield
        self.step.compute.synchronize()  # what was asked of the device must not come after this
        for tensor, before in drawn:
            tensor.copy_(before)
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


@contextmanager
def _capture_errors() -> Iterator[None]:
    """Tell what CUDA refuses to capture, although the step has run before, from a bug in jepa-lab.

    Raises:
        DeviceError: instead of CUDA's error, whose traceback goes to the log. The run ends, because a capture that
            failed leaves generators in the middle of it.
    """
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except RuntimeError as error:
        logger.critical("capturing the step failed", exc_info=error)
        first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise DeviceError(
            f"the step cannot be captured as a graph ({first}); the traceback is in the log. Use training.capture=off",
            keys=[Key("capture", "training")],
        ) from error
