"""What every monitor keeps."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from jepa_lab.data.images import Images
from jepa_lab.errors import RunStopped
from jepa_lab.grid import Grid
from jepa_lab.maskers.base import MASKERS
from jepa_lab.maskers.sampling import MaskSampler
from jepa_lab.monitors.base import ChosenMonitor, Monitor, measure, require_readings
from jepa_lab.monitors.observed import Observed
from jepa_lab.registry import ComponentParams, Entry
from jepa_lab.testing.components import ComponentContract
from jepa_lab.testing.encoders import tiny_encoder
from jepa_lab.testing.randomness import seeded

GRID = Grid(4, 4)


class MonitorContract(ComponentContract):
    """Tests of a `Monitor`; with the settings under test it must read numbers off 60 images."""

    @pytest.fixture
    def chosen(self, entry: Entry[Monitor], params: ComponentParams) -> ChosenMonitor:
        """The monitor under its name."""
        return ChosenMonitor(entry.name, entry.component(params))

    def test_numbers_are_finite_and_belong_to_their_monitor(self, chosen: ChosenMonitor) -> None:
        require_readings(chosen)
        found, num_images = measure(chosen, make_observed())
        assert list(found) == list(chosen.monitor.readings)
        assert all(value is not None and math.isfinite(value) for value in found.values())
        assert num_images == chosen.monitor.num_images(60) <= 60
        assert all(reading.title for reading in chosen.monitor.readings.values())

    def test_numbers_are_the_same_whether_patches_are_held_or_not(self, chosen: ChosenMonitor) -> None:
        held = make_observed()
        assert held.patches is not None
        assert _read(chosen, held) == pytest.approx(_read(chosen, make_observed()), rel=1e-4)

    def test_it_is_repeated_exactly(self, entry: Entry[Monitor], params: ComponentParams) -> None:
        found = []
        for disturbance in (1, 2):
            torch.manual_seed(disturbance)
            found.append(_read(ChosenMonitor(entry.name, entry.component(params)), make_observed()))
        assert found[0] == found[1]

    @pytest.mark.parametrize("mode", [True, False], ids=["training", "evaluation"])
    def test_an_encoder_is_left_as_it_was_and_nothing_is_drawn(self, chosen: ChosenMonitor, mode: bool) -> None:
        observed = make_observed()
        encoder = observed.encoder.train(mode)
        before, state = copy.deepcopy(encoder.state_dict()), torch.get_rng_state()
        _read(chosen, observed)
        assert torch.equal(state, torch.get_rng_state())
        after = encoder.state_dict()
        assert all(torch.equal(before[name], after[name]) for name in before)
        assert all(module.training == mode for module in encoder.modules())
        assert all(parameter.grad is None for parameter in encoder.parameters())

    @pytest.mark.parametrize("count", [1, 2, 7])
    def test_few_images_and_images_that_are_all_the_same_have_a_number_or_none(
        self, chosen: ChosenMonitor, count: int
    ) -> None:
        for images in (random_images(count), random_images(1).expand(count, -1, -1, -1).contiguous()):
            assert all(value is None or math.isfinite(value) for value in _read(chosen, make_observed(images)).values())

    def test_features_that_are_not_finite_are_refused(self, chosen: ChosenMonitor) -> None:
        observed = make_observed()
        observed.encoder.norm.bias.data[0] = math.nan
        with pytest.raises(RunStopped, match="not finite"):
            _read(chosen, observed)


def _read(chosen: ChosenMonitor, observed: Observed) -> dict[str, float | None]:
    return measure(chosen, observed)[0]


def random_images(count: int, seed: int = 0) -> Tensor:
    """[count, 3, 8, 8] uint8."""
    return torch.randint(0, 256, (count, 3, 8, 8), dtype=torch.uint8, generator=seeded(seed))


def tiny_sampler() -> MaskSampler:
    """Contexts of unequal sizes, padded."""
    entry = MASKERS.get("multi_block")
    params = entry.params_type.model_validate({"min_context_patches": 2, "num_targets": 2})
    return MaskSampler(entry.component(params, GRID), "pad", False)


def make_observed(images: Images | None = None, **changes: Any) -> Observed:
    """60 random images through a tiny encoder; anything can be replaced."""
    given: dict[str, Any] = {
        "encoder": tiny_encoder(GRID, patch_size=2),
        "images": random_images(60) if images is None else images,
        "mean": torch.tensor([0.4, 0.5, 0.6]),
        "std": torch.tensor([0.2, 0.3, 0.4]),
        "batch_size": 16,
        "device": torch.device("cpu"),
        "sampler": tiny_sampler(),
        "masked_at_once": 24,
        "seed": 0,
    }
    return Observed(**{**given, **changes})
