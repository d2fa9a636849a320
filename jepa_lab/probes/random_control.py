"""Whether pretraining has brought anything: the trained encoder against the random one that it started as."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jepa_lab.measures import number_of


def no_better_than_random(rows: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The sentence that pretraining has brought nothing, with the probes whose validation scores say so, or None.

    The first score of each probe is asked; an additional probe that has only scores by a key, such as one for each
    number of labels, is not. The test split is never looked at.

    Args:
        rows: row -> probe -> outcome, as in result.json; the controls may be missing.
    """
    told, controls = [], rows.get("random_encoder", {})
    for place, (name, outcome) in enumerate(rows["trained"].items()):
        if name not in controls or (place > 0 and outcome["scores"][0]["key"]):
            continue
        found, other = (number_of(each["scores"][0], "validation") for each in (outcome, controls[name]))
        if found is not None and other is not None and found <= other:
            told.append(f"{found:.2%} against {other:.2%} by {name}")
    if not told:
        return None
    return (
        "NOT BETTER THAN RANDOM: on the validation split the trained encoder does not beat the random one that it "
        f"started as: {', '.join(told)}. Nothing shows that pretraining has taught it anything"
    )
