"""What every registered masker must keep to."""

from jepa_lab.maskers.base import MASKERS
from jepa_lab.testing import MaskerContract
from tests.contracts.registered import each_of


class TestMaskers(MaskerContract):
    entry = each_of(MASKERS)
