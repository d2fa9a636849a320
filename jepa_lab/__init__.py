"""jepa-lab: an ablation lab for I-JEPA pretraining.

The public functions are those of `__all__`; docs/python.md shows them at work. Everything that a user may have got
wrong is a `JepaLabError`. PyTorch, MLflow and Optuna are imported by the function that needs them.
"""

import os
import sys
from typing import TYPE_CHECKING

from jepa_lab.errors import JepaLabError

if TYPE_CHECKING:
    from jepa_lab.api.encoder import Encoder, load_encoder
    from jepa_lab.api.features import FeatureFile, features
    from jepa_lab.api.probing import ProbeResult, probe
    from jepa_lab.api.running import RunResult, run
    from jepa_lab.api.sweeping import SweepResult, sweep

__version__ = "0.1.0"
__all__ = [
    "Encoder",
    "FeatureFile",
    "JepaLabError",
    "ProbeResult",
    "RunResult",
    "SweepResult",
    "__version__",
    "features",
    "load_encoder",
    "probe",
    "run",
    "sweep",
]

SCIPY_SWITCH = "SCIPY_ARRAY_API"
SCIPY_CAME_FIRST = "scipy" in sys.modules and os.environ.get(SCIPY_SWITCH) != "1"
"""Whether scipy was imported without the switch that lets it take tensors, which it reads once."""
# Here, because every other module comes later. See `jepa_lab.probes.arrays`, which needs it on a GPU.
os.environ.setdefault(SCIPY_SWITCH, "1")

_HOMES = {
    "Encoder": "encoder",
    "FeatureFile": "features",
    "ProbeResult": "probing",
    "RunResult": "running",
    "SweepResult": "sweeping",
    "features": "features",
    "load_encoder": "encoder",
    "probe": "probing",
    "run": "running",
    "sweep": "sweeping",
}
"""Module of `jepa_lab.api` of each public name, imported when the name is first used."""


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.api.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
