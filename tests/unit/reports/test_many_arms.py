"""Tables with many arms: what is computed and shown does not grow with the square of the arms."""

from __future__ import annotations

import numpy as np
import pytest

from jepa_lab.reports import multiplicity
from jepa_lab.reports.image_scores import BySeed, crossed_comparison
from jepa_lab.reports.multiplicity import holm, p_of_being_best
from jepa_lab.reports.statistics import paired_t_p
from tests.unit.reports.image_worlds import scored

Values = dict[str, dict[int, float]]


def world(arms: int, seeds: int = 5, images: int = 60) -> tuple[Values, dict[str, BySeed]]:
    """Arms with effects of their own, on images some of which are hard for all."""
    random = np.random.default_rng(arms)
    hard = random.normal(0, 0.2, images)
    found: dict[str, BySeed] = {}
    for arm in range(arms):
        chance = np.clip(0.5 + random.normal(0, 0.05) + hard, 0, 1)
        found[str(arm)] = {seed: scored(random.random(images) < chance) for seed in range(seeds)}
    return {arm: {seed: float(each.correct.mean()) for seed, each in found[arm].items()} for arm in found}, found


def of_all_pairs(values: Values, images: dict[str, BySeed]) -> dict[str, float]:
    """The same p with every pair of arms compared."""
    smallest = {}
    for arm in values:
        one_sided = []
        for other in set(values) - {arm}:
            differences = [values[other][seed] - values[arm][seed] for seed in values[arm]]
            if np.mean(differences) > 0:
                crossed = crossed_comparison((values[other], values[arm]), (images[other], images[arm]))
                assert crossed is not None
                one_sided.append(max(paired_t_p(differences), crossed.p(no_spread=1.0)) / 2)
        smallest[arm] = min(1.0, (len(values) - 1) * min(one_sided, default=1.0))
    return holm(smallest)


@pytest.mark.parametrize("arms", [3, 12])
def test_p_of_being_best_is_that_of_all_pairs(arms: int) -> None:
    values, images = world(arms)
    assert p_of_being_best(values, images=images) == pytest.approx(of_all_pairs(values, images))


def test_few_pairs_of_many_arms_are_compared_over_their_images(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = []
    monkeypatch.setattr(
        multiplicity, "crossed_comparison", lambda *given: compared.append(1) or crossed_comparison(*given)
    )
    values, images = world(60)
    p_of_being_best(values, images=images)
    assert len(compared) < 8 * 60, "of 1770 pairs"
