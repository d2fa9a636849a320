"""jepa-lab: an ablation lab for I-JEPA pretraining."""

import os
import sys

__version__ = "0.1.0"

SCIPY_SWITCH = "SCIPY_ARRAY_API"
SCIPY_CAME_FIRST = "scipy" in sys.modules and os.environ.get(SCIPY_SWITCH) != "1"
"""Whether scipy was imported without the switch that lets it take tensors, which it reads once."""
# Here, because every other module comes later. See `jepa_lab.probes.arrays`, which needs it on a GPU.
os.environ.setdefault(SCIPY_SWITCH, "1")
