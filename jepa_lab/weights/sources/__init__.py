"""Kinds of sources of weights, one a file."""

import sys

from jepa_lab.registry import import_submodules
from jepa_lab.weights.sources.base import WEIGHT_SOURCES

__all__ = ["WEIGHT_SOURCES"]

import_submodules(sys.modules[__name__])
