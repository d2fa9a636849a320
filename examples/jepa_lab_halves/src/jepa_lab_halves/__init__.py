"""A plug-in for jepa-lab: importing it registers a masker and a loss."""

from jepa_lab_halves.charbonnier import Charbonnier
from jepa_lab_halves.halves import Halves

__all__ = ["Charbonnier", "Halves"]
