"""The figures of a run, one file each; importing this package registers them."""

import sys

from jepa_lab.registry import import_submodules

import_submodules(sys.modules[__name__])
