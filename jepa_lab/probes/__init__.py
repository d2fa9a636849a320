"""Probes: what an encoder is worth, measured honestly; one a file."""

import sys

from jepa_lab.registry import import_submodules

import_submodules(sys.modules[__name__])
