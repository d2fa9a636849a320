"""The contracts of jepa-lab's families, for the components of this package."""

import pytest

from jepa_lab.grid import Grid
from jepa_lab.testing import LossContract, MaskerContract
from jepa_lab_halves import Charbonnier, Halves


class TestHalves(MaskerContract):
    component = Halves


class TestCharbonnier(LossContract):
    component = Charbonnier
    settings = {"width": 0.5}


# What is special about a component is tested beside its contract.


@pytest.mark.parametrize("columns", [1, 3])
def test_the_context_has_as_many_columns_as_asked_for(columns: int) -> None:
    assert Halves(Halves.Params(context_columns=columns), Grid(5, 6)).max_context_patches == 5 * columns


def test_a_context_that_leaves_nothing_to_predict_is_refused() -> None:
    problem = Halves.check(Halves.Params(context_columns=6), Grid(5, 6))
    assert problem is not None
    assert "must be below the 6 columns" in str(problem)
