"""Formats that encoders are exported to, one a file."""

import sys

from jepa_lab.interop.exports.base import EXPORT_FORMATS
from jepa_lab.registry import import_submodules

__all__ = ["EXPORT_FORMATS"]

import_submodules(sys.modules[__name__])
