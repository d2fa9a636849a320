"""Values as MLflow shows them."""

from __future__ import annotations

import json

import pytest

from jepa_lab.tracking.description import RunDescription, flat_params, record_name
from jepa_lab.tracking.mlflow_names import legal_params, readable_value


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ([{"name": "rankme"}, {"name": "knn", "neighbors": 5, "vote": None}], "rankme; knn(neighbors=5, vote=null)"),
        ([{"name": "rankme"}, {"t": 2.0, "name": "uniformity"}], "rankme, uniformity(t=2.0)"),
        (["my_masker", "other"], "my_masker, other"),
        (["masker=random, loss=l2", "baseline"], "masker=random, loss=l2; baseline"),
        ([0.15, 0.2], "[0.15, 0.2]"),
        ([], "[]"),
        ('["is text', '["is text'),
        ("multi_block", "multi_block"),
        (1e-3, "0.001"),
    ],
)
def test_lists_of_components_and_names_are_read_without_the_signs_of_json(value: object, shown: str) -> None:
    (text,) = flat_params({"key": value}).values()
    assert readable_value(text) == shown
    assert readable_value(shown) == shown
    assert legal_params({"key": text}) == ({"key": shown}, [])


def test_a_trial_is_called_by_its_arm_and_seed_and_another_run_by_its_folder() -> None:
    trial = RunDescription({"seed": json.dumps(3)}, {"arm": "half, l2"})
    assert record_name(trial, "digits-0123-s3") == "half, l2 s3"
    assert record_name(RunDescription({"seed": "3"}, {}), "digits-0123-s3") == "digits-0123-s3"
