"""Formats of files of features, one a file."""

import sys

from jepa_lab.feature_files.formats.base import FEATURE_FORMATS
from jepa_lab.registry import import_submodules

__all__ = ["FEATURE_FORMATS"]

import_submodules(sys.modules[__name__])
