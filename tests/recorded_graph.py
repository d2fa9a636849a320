"""A stand-in for CUDA graphs on any device: the operators of a step, recorded and run again without their Python."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from jepa_lab.training.whole_step import StepOutcome

Result = TypeVar("Result")


class RecordedGraph(TorchDispatchMode):
    """Records operators, and replays them on the very tensors and with the very numbers that they had.

    As with a CUDA graph, Python code that computed a number, or that replaced a tensor, does not run again.
    """

    def __init__(self) -> None:
        super().__init__()
        self._calls: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        self._calls.append((func, args, kwargs, out))
        return out

    def replay(self) -> None:
        """Run all operators again, each into the memory that it wrote to."""
        with torch.no_grad():
            for func, args, kwargs, out in self._calls:
                given = {each.untyped_storage().data_ptr() for each in _tensors((args, kwargs))}
                again = func(*args, **kwargs)
                for old, new in zip(_tensors(out), _tensors(again), strict=True):
                    if old.untyped_storage().data_ptr() not in given:  # else a view, or changed in place
                        old.copy_(new)


def _tensors(tree: Any) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


class Recorder:
    """A `Capturer` that records. Unlike a capture it executes the step, which whoever captures undoes anyway."""

    def __init__(self) -> None:
        self.warm_ups = self.captures = self.replays = 0

    def warm_up(self, work: Callable[[], object]) -> None:
        self.warm_ups += 1
        work()

    def capture(
        self, work: Callable[[], Result], generators: list[torch.Generator]
    ) -> tuple[Result, Callable[[], None]]:
        graph = RecordedGraph()
        with graph:
            result = work()
        if not isinstance(result, StepOutcome):  # the drawing of masks
            return result, graph.replay
        self.captures += 1

        def replay() -> None:
            self.replays += 1
            graph.replay()

        return result, replay
