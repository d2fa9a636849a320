"""The contract of each family of components as a class of tests, for components of third parties too.

A package tests its own component by inheriting the class of its family:

```python
from jepa_lab.testing import MaskerContract
from my_package import Halves


class TestHalves(MaskerContract):
    component = Halves
```

Every test of these classes states what jepa-lab relies on. They need pytest, which `pip install jepa-lab[dev]` brings.
"""

import pkgutil

import pytest

pytest.register_assert_rewrite(*(f"{__name__}.{module.name}" for module in pkgutil.iter_modules(__path__)))

from jepa_lab.testing.augmentations import AugmentationContract  # noqa: E402
from jepa_lab.testing.components import ComponentContract  # noqa: E402
from jepa_lab.testing.datasets import DatasetContract  # noqa: E402
from jepa_lab.testing.downsamplings import DownsamplingContract  # noqa: E402
from jepa_lab.testing.executors import ExecutorContract  # noqa: E402
from jepa_lab.testing.export_formats import ExportFormatContract  # noqa: E402
from jepa_lab.testing.feature_formats import FeatureFormatContract  # noqa: E402
from jepa_lab.testing.figures import FigureContract  # noqa: E402
from jepa_lab.testing.losses import LossContract  # noqa: E402
from jepa_lab.testing.maskers import MaskerContract  # noqa: E402
from jepa_lab.testing.monitors import MonitorContract  # noqa: E402
from jepa_lab.testing.positions import PositionContract  # noqa: E402
from jepa_lab.testing.probes import ProbeContract  # noqa: E402
from jepa_lab.testing.regularizers import RegularizerContract  # noqa: E402
from jepa_lab.testing.schedules import EmaScheduleContract  # noqa: E402
from jepa_lab.testing.sizes import EncoderSizeContract, PredictorSizeContract  # noqa: E402
from jepa_lab.testing.targets import TargetContract  # noqa: E402
from jepa_lab.testing.trackers import TrackerContract  # noqa: E402
from jepa_lab.testing.weight_sources import WeightSourceContract  # noqa: E402

__all__ = [
    "AugmentationContract",
    "ComponentContract",
    "DatasetContract",
    "DownsamplingContract",
    "EmaScheduleContract",
    "EncoderSizeContract",
    "ExecutorContract",
    "ExportFormatContract",
    "FeatureFormatContract",
    "FigureContract",
    "LossContract",
    "MaskerContract",
    "MonitorContract",
    "PositionContract",
    "PredictorSizeContract",
    "ProbeContract",
    "RegularizerContract",
    "TargetContract",
    "TrackerContract",
    "WeightSourceContract",
]
