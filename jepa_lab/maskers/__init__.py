"""Maskers: which patches are context and which are targets."""

import sys

from jepa_lab.registry import import_submodules

import_submodules(sys.modules[__name__])
