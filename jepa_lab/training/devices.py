"""Which device, precision, compiler and memory a run uses."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from jepa_lab.errors import ConfigError, DeviceError, Key, RunOutOfMemory
from jepa_lab.training.compiling import compiles, missing_for_compiling, require_compiler
from jepa_lab.training.settings import TrainingSettings

_CPU_MEMORY_FULL = "DefaultCPUAllocator: can't allocate memory"
_DEVICE = Key("device", "training")
_HALF = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Compute:
    """How the arithmetic of a run is done.

    Attributes:
        precision: fp32, bf16 or fp16.
        compile: whether the model is compiled; where `auto` decides, only `for_run` says so.
        capture: whether the whole step is captured as a CUDA graph, if it can be.
    """

    device: torch.device
    precision: str
    compile: bool
    capture: bool = False

    @property
    def draws_ahead(self) -> bool:
        """Whether masks are drawn a step ahead, so that the host knows their extent without waiting."""
        return self.capture or self.device.type == "cuda"

    @property
    def preparation(self) -> str:
        """What the first step does beside computing, in words."""
        done = " and ".join(word for word, does in (("compiling", self.compile), ("capturing", self.capture)) if does)
        return f"{done} the training step" if done else "first step"

    def for_run(self, settings: TrainingSettings, total_steps: int, before: bool | None = None) -> Compute:
        """The same for a run of so many steps, which decide whether `training.compile=auto` compiles.

        Args:
            total_steps: of the whole run, whatever is left of it.
            before: whether the run that is resumed was compiled; None where there is none, or it does not say.
        """
        compile = compiles(settings.compile, self.device, total_steps) if before is None else before
        return replace(self, compile=compile)

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """The context in which forward passes run."""
        if self.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=_HALF[self.precision])

    def describe(self) -> str:
        """The device in words."""
        if self.device.type == "cuda":
            return torch.cuda.get_device_name(self.device)
        if self.device.type == "cpu":
            threads = torch.get_num_threads()
            return f"cpu ({threads} thread{'' if threads == 1 else 's'})"
        return "mps"

    def peak_memory_bytes(self) -> int:
        """Most memory held so far: on the device for CUDA, of the process elsewhere."""
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024  # kilobytes on Linux, bytes on macOS

    def synchronize(self) -> None:
        """Wait for the device, so that a clock read next is true."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        elif self.device.type == "mps":
            torch.mps.synchronize()


def resolve_compute(settings: TrainingSettings) -> Compute:
    """Turn `auto` into this machine's device and precision; whether to compile depends on the number of steps, too.

    Raises:
        DeviceError: if a device that was asked for by name, or what compiling on it needs, is not here.
    """
    device = _resolve_device(settings.device)
    if settings.compile == "on":
        require_compiler(device)
    return Compute(
        device,
        _resolve_precision(settings.precision, device),
        settings.compile == "on",
        _resolve_capture(settings.capture, device),
    )


def only_elsewhere(settings: TrainingSettings) -> str | None:
    """Why this machine cannot do what another one can: it lacks the device; None where it has it.

    Raises:
        DeviceError: no machine can.
    """
    missing = _missing(settings.device)
    if missing is not None:
        _resolve_capture(settings.capture, torch.device(device_type(settings.device)))
    return missing


def resume_compute(settings: TrainingSettings, device: str, precision: str, compiled: bool | None) -> Compute:
    """The device and precision that a run goes on with: those that it began on.

    Args:
        device: its type, such as cuda. precision: fp32, bf16 or fp16.
        compiled: whether its model was compiled, as it will be now; None where it does not say.
    Raises:
        DeviceError: if this machine does not have them, or cannot compile.
    """
    if settings.device == "auto" and _device_counts().get(device):
        settings = settings.model_copy(update={"device": device})
    compute = resolve_compute(settings)
    if (compute.device.type, compute.precision) != (device, precision):
        raise DeviceError(
            f"the run began on {device} in {precision}, and this machine has {_devices_here()} and would compute in "
            f"{compute.precision}; resume it on a machine with {device} that computes in {precision}"
        )
    missing = missing_for_compiling(compute.device) if compiled else None
    if missing is not None:
        raise DeviceError(f"the run began with a compiled model, which needs {missing}; install it to resume the run")
    return compute


@contextlib.contextmanager
def memory_errors(settings: TrainingSettings) -> Iterator[None]:
    """Name the remedies when memory runs out.

    Raises:
        RunOutOfMemory: instead of the allocator's error.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        # On a CPU, PyTorch raises a plain RuntimeError; torch.OutOfMemoryError is one too.
        full = isinstance(error, (torch.OutOfMemoryError, MemoryError)) or _CPU_MEMORY_FULL in str(error)
        if not full:
            raise
        first = str(error).splitlines()[0] if str(error) else "no details"
        raise RunOutOfMemory(
            f"out of memory ({first}); checkpoints that were written are kept. Lower training.batch_size "
            f"({settings.batch_size}), raise training.accumulation_steps ({settings.accumulation_steps}), "
            "set training.activation_checkpointing=true or training.capture=off (a captured step keeps its memory), "
            "limit data.max_images, or take a smaller encoder"
        ) from error


def device_type(name: str) -> str:
    """The kind of device that `training.device` names, whether one is here or not; `auto` is the best one here.

    Raises:
        DeviceError: it names none.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        return torch.device(name).type
    except RuntimeError:
        raise DeviceError(
            f"training.device must be auto, cpu, cuda, cuda:N or mps, got {name!r}; use training.device=auto",
            keys=[_DEVICE],
        ) from None


def inference_device(name: str | None, setting: str) -> torch.device:
    """The device that features are computed on: the one that is named, else CUDA where there is one, else the CPU.

    Args:
        setting: where the name was given, for the message.
    Raises:
        ConfigError: there is no such device here.
    """
    if name is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.zeros(0, device=name).device
    except (RuntimeError, AssertionError) as error:  # an unknown name, or PyTorch without that device
        raise ConfigError(
            f"{setting}={name}: no such device here ({str(error).splitlines()[0]}); use cpu or cuda"
        ) from error


def _resolve_device(name: str) -> torch.device:
    missing = _missing(name)
    if missing is not None:
        raise DeviceError(f"{missing}; use training.device=auto", keys=[_DEVICE])
    return torch.device(device_type(name) if name == "auto" else name)


def _missing(name: str) -> str | None:
    """What is wrong with a device that exists elsewhere alone."""
    kind, index = device_type(name), 0 if name == "auto" else torch.device(name).index or 0
    if index < _device_counts().get(kind, 0):
        return None
    return f"training.device={name!r} is not on this machine, which has {_devices_here()}"


def _device_counts() -> dict[str, int]:
    return {"cpu": 1, "cuda": torch.cuda.device_count(), "mps": int(torch.backends.mps.is_available())}


def _devices_here() -> str:
    return ", ".join(f"{kind} ({number})" for kind, number in _device_counts().items() if number)


def _resolve_precision(precision: str, device: torch.device) -> str:
    if precision != "auto":
        return precision
    # A CPU without bf16 instructions emulates them: a step took 25 times as long, so auto is fp32 on every CPU.
    return "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"


def _resolve_capture(choice: str, device: torch.device) -> bool:
    if choice == "on" and device.type != "cuda":
        raise DeviceError(
            f"training.capture=on captures CUDA graphs, and the device is {device}; use training.device=cuda, or "
            "training.capture=auto",
            keys=[Key("capture", "training")],
        )
    return choice != "off" and device.type == "cuda"
