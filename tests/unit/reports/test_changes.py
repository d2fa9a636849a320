"""What an arm changes, each thing said once and with digits that tell values apart."""

from __future__ import annotations

import pytest

from jepa_lab.reports.changes import changed_keys
from jepa_lab.reports.numbers import short_value

BASELINE = {"masker": "multi_block(num_targets=2)", "masker.num_targets": 2, "training.epochs": 10}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"masker": "multi_block", "masker.num_targets": 4}, {"masker.num_targets": "4"}),
        ({"masker": "random", "masker.num_targets": None}, {"masker": "random"}),
        (
            {"masker": "other(num_targets=4)", "masker.num_targets": 4},
            {"masker": "other(num_targets=4)", "masker.num_targets": "4"},
        ),
        (
            {"masker": "multi_block(num_targets=2, a=1)", "masker.num_targets": 2},
            {"masker": "multi_block(num_targets=2, a=1)"},
        ),
        ({"training.epochs": 20}, {"training.epochs": "20"}),
        ({"training.epochs": None}, {"training.epochs": "absent"}),
    ],
)
def test_an_arm_names_what_it_changes_and_nothing_that_follows_from_it(
    values: dict[str, object], expected: dict[str, str]
) -> None:
    assert changed_keys({**BASELINE, **values}, BASELINE) == expected


def test_numbers_are_short_and_near_one_still_told_apart() -> None:
    assert [short_value(value) for value in (0.00123456, 0.5, 1.0, 12.0, 0.0)] == ["0.001235", "0.5", "1", "12", "0"]
    assert short_value(0.99996) == "0.99996"
    assert short_value(0.999612, 3) == "0.999612"
    assert changed_keys({"ema": 0.99996}, {"ema": 1.0}) == {"ema": "0.99996"}
