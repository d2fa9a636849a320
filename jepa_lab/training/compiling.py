"""Compiling the model of the training step: when it pays, what it needs, and where what was compiled is kept."""

from __future__ import annotations

import hashlib
import logging
import os
import platform
import shutil
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from jepa_lab.data.cache import cache_folder
from jepa_lab.errors import ConfigError, DeviceError, Key, RunFolderError, RunStopped
from jepa_lab.tracking.atomic import explained_writes

logger = logging.getLogger(__name__)

CompileChoice = Literal["auto", "on", "off"]

FEWEST_STEPS = {"cuda": 3_000}
"""Steps of the shortest run that compiling makes faster even where nothing was kept from an earlier start, by type of
device; on one that is not named, it is never worth it. Measured: benchmarks/results/compile.md."""

_COMPILERS = ("torch._dynamo", "torch._inductor", "torch._functorch", "triton")
_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"


def compiles(choice: CompileChoice, device: torch.device, total_steps: int) -> bool:
    """Whether the model of a run is compiled.

    `auto` asks for nothing that may differ when the run is resumed or repeated: neither how many steps are left, nor
    what is kept from earlier starts, nor how fast the machine is at the moment.

    Args:
        total_steps: of the whole run.
    """
    if choice != "auto":
        return choice == "on"
    fewest = FEWEST_STEPS.get(device.type)
    if fewest is None or total_steps < fewest:
        return False
    missing = missing_for_compiling(device)
    if missing is not None:
        logger.warning("the model is not compiled, which makes it slower: %s is not here", missing)
    return missing is None


def require_compiler(device: torch.device) -> None:
    """Refuse `training.compile=on` where compiling would fail at the first step.

    Raises:
        DeviceError: something that it needs is not here.
    """
    missing = missing_for_compiling(device)
    if missing is not None:
        raise DeviceError(
            f"training.compile=on needs {missing}, which is not here; install it, or use training.compile=off",
            keys=[Key("compile", "training")],
        )


def missing_for_compiling(device: torch.device) -> str | None:
    """What torch.compile needs for this device and does not find."""
    if not (Path(sysconfig.get_path("include")) / "Python.h").is_file():
        return "what C code needs of Python (Python.h, of a package such as python3-dev)"
    if device.type != "cuda":
        compiler = os.environ.get("CXX", "clang++" if sys.platform == "darwin" else "g++")
        return None if shutil.which(compiler) else f"a C++ compiler ({compiler})"
    if not _has_triton():
        return "Triton for this GPU"
    compilers = [os.environ["CC"]] if "CC" in os.environ else ["gcc", "clang"]
    return None if any(map(shutil.which, compilers)) else f"a C compiler ({' or '.join(compilers)}) for Triton"


def _has_triton() -> bool:
    from torch.utils._triton import has_triton

    return has_triton()


def compiled(model: nn.Module, device: torch.device) -> Callable[..., Any]:
    """The model, compiled when it is first called; what is compiled is kept for later processes.

    Without CUDA graphs of the compiler's own: the whole step is captured as one.
    """
    _keep(device)
    return torch.compile(model)


@contextmanager
def compiler_errors() -> Iterator[None]:
    """Tell a compiler that fails from a bug in jepa-lab.

    Raises:
        DeviceError: instead of the error of torch.compile, or of Triton, whose traceback goes to the log.
    """
    try:
        yield
    except Exception as error:
        if not any(kind.__module__.startswith(_COMPILERS) for kind in type(error).__mro__):
            raise
        logger.critical("torch.compile failed", exc_info=error)
        first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise DeviceError(
            f"torch.compile failed ({first}); the traceback is in the log. Use training.compile=off, or repair what it "
            "lacks",
            keys=[Key("compile", "training")],
        ) from error


def kept_in() -> Path | None:
    """The folder that holds what this process compiles; None for the compiler's own choice."""
    return Path(os.environ[_VARIABLE]) if os.environ.get(_VARIABLE) else None


def _keep(device: torch.device) -> None:
    """Name a lasting folder to the compiler, which would take a temporary one; Triton's files go there too.

    A folder that the user has named is left alone. One that cannot be used is told in the log, and costs only time.
    """
    try:
        ours, chosen = cache_folder() / "compiled", kept_in()
        if chosen is not None and not (chosen.is_relative_to(ours) or _is_temporary(chosen)):
            return
        folder = ours / _conditions(device)
        with explained_writes(folder):
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()  # the compiler does not say why it cannot write
        os.environ[_VARIABLE] = str(folder)
    except (ConfigError, RunFolderError, RunStopped) as error:
        logger.warning("what is compiled cannot be kept for later starts: %s", error)


def _is_temporary(folder: Path) -> bool:
    """Whether it is the folder that the compiler itself names in the environment when nobody else has."""
    return folder.parent == Path(tempfile.gettempdir()) and folder.name.startswith("torchinductor_")


def _conditions(device: torch.device) -> str:
    """What kernels are made for, where older compilers forget to ask whether they still fit.

    On a CPU they are made for its instructions, and share their work among a fixed number of threads. A home folder
    may be shared by machines with different processors.
    """
    if device.type != "cpu":
        return device.type
    return f"cpu-{_processor()}-{torch.get_num_threads()}-threads"


def _processor() -> str:
    """Digest of what the processor can do; Linux lists it in /proc/cpuinfo."""
    cpuinfo, described = Path("/proc/cpuinfo"), platform.processor() or platform.machine()
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
        described = next((line for line in lines if line.startswith(("flags", "Features"))), described)
    return hashlib.sha256(described.encode()).hexdigest()[:8]
