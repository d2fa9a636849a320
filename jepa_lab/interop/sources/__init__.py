"""Kinds of sources of weights, one a file."""

import sys

from jepa_lab.interop.sources.base import WEIGHT_SOURCES
from jepa_lab.registry import import_submodules

__all__ = ["WEIGHT_SOURCES"]

import_submodules(sys.modules[__name__])
