"""How features of a coarser grid are made, one way a file."""

import sys

from jepa_lab.registry import import_submodules

import_submodules(sys.modules[__name__])
