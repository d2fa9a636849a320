"""What every registered probe must keep."""

from typing import Any

import jepa_lab.probes  # noqa: F401  (registers them)
from jepa_lab.probes.base import PROBES
from jepa_lab.testing import ProbeContract
from tests.contracts.registered import each_of, settings_of

SHORT: dict[str, dict[str, Any]] = {
    "attentive": {"epochs": 2, "num_heads": 2, "learning_rates": (0.01, 0.1), "weight_decays": (0.1,)},
    "finetune": {"epochs": 2, "batch_size": 30},
    "layerwise": {"c_grid": (0.1,)},
    "linear_ijepa": {"epochs": 2, "batch_size": 30},
    "linear_sgd": {"epochs": 3, "learning_rates": (0.01, 0.1), "ridges": (0.1, 1.0)},
    "logistic": {"c_grid": (0.1, 1.0)},
    "segmentation": {"epochs": 1, "learning_rates": (0.01, 0.1)},
    "low_shot": {"c_grid": (0.1,), "shots": (1, 5, 100), "draws": 2},
}
"""Parameters with which the probes that ship take no time."""


class TestProbes(ProbeContract):
    entry = each_of(PROBES)
    params = settings_of(SHORT)
