"""Executors, one a file."""

import sys

from jepa_lab.registry import import_submodules
from jepa_lab.sweeps.executors.base import EXECUTORS

__all__ = ["EXECUTORS"]

import_submodules(sys.modules[__name__])
