"""Watching what the operators of a step read, to know whether the step can be captured as a graph.

A captured graph repeats the very operators of one step, on the same tensors and with the same Python numbers. So a
step can be captured if it asks the device for no value, and if two steps differ neither in their operators, nor in
the numbers that these are given, nor in the tensors that are there before the step.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

_HOST_READS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "equal")
"""Operators whose result depends on numbers of the device: a value on the host, or a shape."""
_INDEXING = ("index", "index_put", "index_put_", "_index_put_impl_")
_BAKED_IN = (bool, int, float, complex, str, torch.dtype, torch.device, torch.layout, torch.memory_format)
_TORCH = str(Path(torch.__file__).parent)


@dataclass(frozen=True)
class Call:
    """One operator of a step.

    Attributes:
        arguments: what a graph would bake in: numbers, shapes, and which tensors of before the step are read.
        numbers: values of the scalars that lie in the host's memory.
        place: `file:line` of the Python code outside PyTorch that called it.
    """

    operator: str
    arguments: tuple[Any, ...]
    numbers: tuple[Any, ...]
    place: str

    def repeats(self, other: Call) -> bool:
        """Whether a graph of the one would do what the other does."""
        return self.operator == other.operator and all(
            mine == its or (number is not None and number == its_number)
            for mine, its, number, its_number in zip_longest(
                self.arguments, other.arguments, self.numbers, other.numbers
            )
        )


class StepWatch(TorchDispatchMode):
    """Notes the operators that run inside it, outside compiled functions.

    Attributes:
        host_reads: operators that make the host wait for a device, copies between the two among them, with their
            places.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Call] = []
        self.host_reads: list[str] = []
        self._made: set[int] = set()
        self._held: list[Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name, kwargs = func._schema.name.removeprefix("aten::"), kwargs or {}
        place = _place()
        if reads_on_host(name, args):
            self.host_reads.append(f"{name} at {place}")
        leaves = tree_leaves((args, kwargs))
        self.calls.append(Call(str(func), tuple(map(self._argument, leaves)), tuple(map(self._number, leaves)), place))
        out = func(*args, **kwargs)
        places = {each.device.type for each in tree_leaves((args, kwargs, out)) if _holds_many(each)}
        if len(places) > 1 and not _leaves_a_note(name, args, kwargs):
            self.host_reads.append(f"{name} between host and device at {place}")
        self._made.update(each.untyped_storage().data_ptr() for each in tree_leaves(out) if isinstance(each, Tensor))
        return out

    def _is_made(self, tensor: Tensor) -> bool:
        return tensor.untyped_storage().data_ptr() in self._made

    def _argument(self, leaf: Any) -> Any:
        if isinstance(leaf, Tensor):
            if self._is_made(leaf):
                return (leaf.shape, leaf.dtype, "made")
            self._held.append(leaf)  # so that no other tensor gets its address
            return (leaf.shape, leaf.dtype, leaf.data_ptr())
        if isinstance(leaf, torch.Generator):
            return leaf
        # The profiler hands over objects that cannot be compared; they change nothing.
        return repr(leaf) if isinstance(leaf, _BAKED_IN) else type(leaf)

    def _number(self, leaf: Any) -> Any:
        """The value of a Python number that PyTorch has wrapped for the operator in a tensor of its own."""
        wrapped = isinstance(leaf, Tensor) and leaf.ndim == 0 and leaf.device.type == "cpu" and not self._is_made(leaf)
        return repr(leaf.item()) if wrapped else None


def _leaves_a_note(name: str, args: Any, kwargs: Any) -> bool:
    """Whether the device writes into memory of the host that stays where it is, and nobody waits for it."""
    non_blocking = kwargs.get("non_blocking", args[2] if len(args) > 2 else False)
    return name == "copy_" and non_blocking and args[0].device.type == "cpu" and args[0].is_pinned()


def _holds_many(leaf: Any) -> bool:
    """Whether it is a tensor, and not a number that PyTorch has wrapped."""
    return isinstance(leaf, Tensor) and (leaf.ndim > 0 or leaf.device.type != "cpu")


def reads_on_host(name: str, args: Any) -> bool:
    """Whether an operator makes the host wait for a value, or has a shape that follows from values."""
    if name.rstrip("_").startswith(_HOST_READS) and name != "equal_":
        return True
    return name in _INDEXING and any(at is not None and at.dtype == torch.bool for at in args[1])


def objections_to_capture(take: Callable[[], object]) -> list[str]:
    """Why a step cannot be captured, in words; empty where it can.

    Args:
        take: takes the step, always on the same batch; called three times.
    """
    take()  # what is made once, tables and the optimizer's moments, is made now
    watches = StepWatch(), StepWatch()
    for watch in watches:
        with watch:
            take()
    first, second = watches
    if second.host_reads:
        return [f"it makes the host wait for the device ({read})" for read in dict.fromkeys(second.host_reads)]
    return list(dict.fromkeys(_differences(first.calls, second.calls)))[:1]


def _differences(first: list[Call], second: list[Call]) -> Iterator[str]:
    for one, other in zip_longest(first, second):
        if one is None or other is None:
            yield f"one step has {len(first)} operators and the next one {len(second)}"
        elif not one.repeats(other):
            what = "the numbers or tensors" if one.operator == other.operator else "the operators"
            yield f"{what} that Python gives it change from step to step ({other.operator} at {other.place})"


def _place() -> str:
    """Where the innermost frame is that is neither PyTorch's nor this file's."""
    frame: Any = sys._getframe(1)
    while frame is not None:
        file = frame.f_code.co_filename
        if file != __file__ and not file.startswith((_TORCH, "<")):
            return f"{file}:{frame.f_lineno}"
        frame = frame.f_back
    return "the backward pass"
