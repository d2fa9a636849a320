"""What every registered component of every family must keep."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

import jepa_lab.data.augmentations
import jepa_lab.data.datasets
import jepa_lab.feature_files.formats
import jepa_lab.figures.runs
import jepa_lab.interop.exports
import jepa_lab.monitors
import jepa_lab.probes
import jepa_lab.sweeps.executors
import jepa_lab.weights.sources  # noqa: F401  (all of them register what they hold)
from jepa_lab.config.fields import section_of
from jepa_lab.config.pipeline import Pipeline
from jepa_lab.downsampling.base import DOWNSAMPLINGS
from jepa_lab.figures.runs.base import FIGURES
from jepa_lab.grid import Grid
from jepa_lab.losses.base import LOSSES
from jepa_lab.models.sizes import ENCODER_SIZES, PREDICTOR_SIZES
from jepa_lab.positions.base import POSITIONS, PositionInputs, PositionsOfEncoder
from jepa_lab.positions.learned import LearnedPosition
from jepa_lab.positions.rope import RotaryPosition
from jepa_lab.registry import FAMILIES, Entry
from jepa_lab.regularizers.base import REGULARIZERS
from jepa_lab.targets.base import TARGETS
from jepa_lab.testing import (
    AugmentationContract,
    ComponentContract,
    DatasetContract,
    DownsamplingContract,
    EmaScheduleContract,
    EncoderSizeContract,
    ExecutorContract,
    ExportFormatContract,
    FeatureFormatContract,
    FigureContract,
    LossContract,
    MaskerContract,
    MonitorContract,
    PositionContract,
    PredictorSizeContract,
    ProbeContract,
    RegularizerContract,
    TargetContract,
    TrackerContract,
    WeightSourceContract,
)
from jepa_lab.testing.components import large_numbers
from jepa_lab.training.ema.base import EMA_SCHEDULES
from tests.contracts.registered import each_of, settings_of
from tests.positions import ENCODER_POSITIONS

REQUIRED = {"custom": {"embed_dim": 24, "depth": 2, "num_heads": 3}}


class TestPositions(PositionContract):
    entry = each_of(POSITIONS.get(name) for name in ENCODER_POSITIONS)


class TestPositionsOfPredictors(ComponentContract):
    """Those that need an encoder to follow."""

    entry = each_of(entry for entry in POSITIONS if entry.name not in ENCODER_POSITIONS)
    fitting = PositionInputs(Grid(8, 8), 48, 4, PositionsOfEncoder("learned", LearnedPosition, Grid(8, 8)))
    breaking: Sequence[Any] = (
        PositionInputs(Grid(4, 4), 24, 3),
        PositionInputs(Grid(4, 4), 24, 3, PositionsOfEncoder("rope", RotaryPosition, Grid(4, 4))),
        PositionInputs(Grid(2, 2), 24, 3, PositionsOfEncoder("learned", LearnedPosition, Grid(4, 4))),
    )


class TestLosses(LossContract):
    entry = each_of(LOSSES)


class TestTargets(TargetContract):
    entry = each_of(TARGETS)


class TestRegularizers(RegularizerContract):
    entry = each_of(REGULARIZERS)


class TestEmaSchedules(EmaScheduleContract):
    entry = each_of(EMA_SCHEDULES)


class TestDownsamplings(DownsamplingContract):
    entry = each_of(DOWNSAMPLINGS)


class TestEncoderSizes(EncoderSizeContract):
    entry = each_of(ENCODER_SIZES)
    params = settings_of(REQUIRED)


class TestPredictorSizes(PredictorSizeContract):
    entry = each_of(PREDICTOR_SIZES)
    params = settings_of(REQUIRED)


CONTRACTS: dict[str, type[ComponentContract]] = {
    "augmentation": AugmentationContract,
    "dataset": DatasetContract,
    "downsampling": DownsamplingContract,
    "ema_momentum": EmaScheduleContract,
    "encoder_size": EncoderSizeContract,
    "executor": ExecutorContract,
    "export_format": ExportFormatContract,
    "feature_format": FeatureFormatContract,
    "figure": FigureContract,
    "loss": LossContract,
    "masker": MaskerContract,
    "monitor": MonitorContract,
    "position": PositionContract,
    "predictor_size": PredictorSizeContract,
    "probe": ProbeContract,
    "regularizer": RegularizerContract,
    "target": TargetContract,
    "tracker": TrackerContract,
    "weight_source": WeightSourceContract,
}
"""By family; the tests of those that are not above stand in files of their own."""


class TestOthers(ComponentContract):
    """Executors of clusters, which are tested with their clusters, and figures whose package may be missing."""

    entry = each_of([*FAMILIES["executor"], *(entry for entry in FIGURES if not entry.component.after_run)])


def test_the_rules_that_the_shipped_components_have_are_met_above() -> None:
    """Or the tests of rules would say nothing."""
    followers = TestPositionsOfPredictors()
    broken = {
        (family, entry.name)
        for family, contract in CONTRACTS.items()
        for entry in FAMILIES[family]
        for known in [*contract().known_to_runs(entry), *(followers.breaking if family == "position" else ())]
        for usual in [entry.config_type(**REQUIRED.get(entry.name, {}))]
        for params in [usual, *large_numbers(entry, usual)]
        if entry.component.check(params, known) is not None
    }
    assert broken >= {
        ("position", "from_encoder"),
        ("position", "rope"),
        ("position", "sincos"),
        ("target", "features"),
        ("target", "normalized_pixels"),
        ("target", "pca"),
        ("loss", "cosine"),
        ("regularizer", "vicreg"),
        ("probe", "knn"),
    }


def sections(model: type[BaseModel]) -> list[type[BaseModel]]:
    """A settings class and those that it is made of."""
    inner = [section_of(field) for field in model.model_fields.values()]
    return [model, *(found for section in inner if section is not None for found in sections(section))]


PARAMS = {entry.params_type for family in FAMILIES.values() for entry in family} | set(sections(Pipeline))
NUMBERS = [
    pytest.param(model, name, id=f"{model.__qualname__}-{name}")
    for model in sorted(PARAMS, key=lambda model: model.__qualname__)
    for name, field in model.model_fields.items()
    if re.search(r"\b(int|float)\b", str(field.annotation)) and "bool" not in str(field.annotation)
]


@pytest.mark.parametrize(("model", "name"), NUMBERS)
@pytest.mark.parametrize("value", [True, False, [True, True], [0.5, True]], ids=str)
def test_a_truth_value_is_no_number(model: type[BaseModel], name: str, value: object) -> None:
    with pytest.raises(ValidationError) as caught:
        model.model_validate({name: value})
    of_field = [detail for detail in caught.value.errors() if detail["loc"][0] == name]
    assert of_field
    if isinstance(value, bool) and "tuple" not in str(model.model_fields[name].annotation):
        assert {detail["type"] for detail in of_field} <= {"int_type", "float_type"}


def test_every_family_that_third_parties_add_to_has_its_contract() -> None:
    assert set(FAMILIES) == set(CONTRACTS)
    assert all(isinstance(entry, Entry) for family in FAMILIES.values() for entry in family)
