"""Which device, precision and compiler a run uses."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import torch

from jepa_lab.errors import DeviceError
from jepa_lab.training.settings import TrainingSettings

_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Compute:
    """How the arithmetic of a run is done.

    Attributes:
        precision: fp32, bf16 or fp16.
        compile: whether the model is compiled.
    """

    device: torch.device
    precision: str
    compile: bool

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """The context in which forward passes run."""
        if self.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=_HALF[self.precision])

    def describe(self) -> str:
        """The device in words."""
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        return f"{self.device.type} ({torch.get_num_threads()} threads)" if self.device.type == "cpu" else "mps"

    def peak_memory_bytes(self) -> int:
        """Most memory held so far: on the device for CUDA, of the process elsewhere."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        import resource
        import sys

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024  # kilobytes on Linux, bytes on macOS

    def synchronize(self) -> None:
        """Wait for the device, so that a clock read next is true."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()


def resolve_compute(settings: TrainingSettings) -> Compute:
    """Turn `auto` into this machine's device, precision and compiler.

    Raises:
        DeviceError: if a device that was asked for by name is not here.
    """
    device = _resolve_device(settings.device)
    return Compute(device, _resolve_precision(settings.precision, device), _resolve_compile(settings.compile, device))


def _resolve_device(name: str) -> torch.device:
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise DeviceError(
            f"training.device must be auto, cpu, cuda, cuda:N or mps, got {name!r}; use training.device=auto"
        ) from None
    count = {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}
    if device.type not in count or (device.index or 0) >= count[device.type]:
        here = ", ".join(f"{kind} ({number})" for kind, number in count.items() if number)
        raise DeviceError(
            f"training.device={name!r} is not on this machine, which has {here}; use training.device=auto"
        )
    return device


def _resolve_precision(precision: str, device: torch.device) -> str:
    if precision != "auto":
        return precision
    # A CPU without bf16 instructions emulates them: a step took 25 times as long, so auto is fp32 on every CPU.
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"


def _resolve_compile(choice: str, device: torch.device) -> bool:
    # Compiling a small step costs more than a minute on a CPU and gains nothing there.
    return device.type == "cuda" if choice == "auto" else choice == "on"
