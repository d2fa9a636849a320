"""What a trial asks a Ray cluster for, and what the cluster's nodes have."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

_GIB = 2**30
_ROUNDING = 1e-6
_OWN_RESOURCES = ("CPU", "GPU", "memory", "object_store_memory", "node:", "accelerator_type:")


@dataclass(frozen=True)
class Node:
    """A machine of a cluster.

    Attributes:
        resources: of all of it, used or not, as Ray counts them: CPU, GPU, memory in bytes, and custom ones.
    """

    name: str
    resources: Mapping[str, float]

    def sentence(self) -> str:
        """Name and resources."""
        custom = {name: n for name, n in self.resources.items() if not name.startswith(_OWN_RESOURCES)}
        cpus, gpus, memory = (self.resources.get(name) for name in ("CPU", "GPU", "memory"))
        return f"{self.name}: {described(cpus or 0, gpus or 0, memory, custom)}"


@dataclass(frozen=True)
class Request:
    """What a trial asks for.

    Attributes:
        memory: bytes; None for none in particular.
        custom: resources that some nodes were started with.
    """

    cpus: int
    gpus: float
    memory: int | None
    custom: Mapping[str, float] = field(default_factory=dict)

    def room(self, node: Node) -> int:
        """How many of these a node holds when nothing else is on it."""
        most = [_times(node.resources.get(name, 0), asked) for name, asked in self._by_name().items()]
        return min(most)

    def options(self) -> dict[str, Any]:
        """For `ray.remote`."""
        memory = {} if self.memory is None else {"memory": self.memory}
        return {"num_cpus": self.cpus, "num_gpus": self.gpus, "resources": dict(self.custom), **memory}

    def sentence(self) -> str:
        """In words."""
        return described(self.cpus, self.gpus, self.memory, self.custom)

    def with_more_memory(self, most: float) -> Request | None:
        """Twice the main memory, at most `most` bytes, which is half of it where none was asked for; None for all."""
        if self.memory is not None and self.memory >= math.floor(most):
            return None
        return replace(self, memory=math.floor(most / 2 if self.memory is None else min(most, 2 * self.memory)))

    def with_more_gpu(self) -> Request | None:
        """Twice the part of a GPU, at most all of it; None where it has that."""
        return None if self.gpus >= 1 else replace(self, gpus=min(1.0, 2 * self.gpus))

    def _by_name(self) -> dict[str, float]:
        named = {"CPU": self.cpus, "GPU": self.gpus, "memory": self.memory or 0, **self.custom}
        return {name: asked for name, asked in named.items() if asked > 0}


def described(cpus: float, gpus: float, memory: float | None, custom: Mapping[str, float]) -> str:
    """Resources in words: 4 CPUs, 0.5 GPUs, 16.0 GiB of memory, 1 a100."""
    parts = [f"{cpus:g} CPU{'' if cpus == 1 else 's'}"]
    if gpus:
        parts.append(f"{gpus:g} GPU{'' if gpus == 1 else 's'}")
    if memory is not None:
        parts.append(f"{memory / _GIB:.1f} GiB of memory")
    parts += [f"{asked:g} {name}" for name, asked in sorted(custom.items())]
    return ", ".join(parts)


def _times(there: float, asked: float) -> int:
    """How often an amount is there; each of several GPUs is shared by itself."""
    if asked < 1:
        return math.floor(there) * math.floor(1 / asked + _ROUNDING) + math.floor((there % 1) / asked + _ROUNDING)
    return math.floor(there / asked + _ROUNDING)
