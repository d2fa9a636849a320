"""Label-free monitors of features, one a file, and the rule that judges a run collapsed."""

import sys

from jepa_lab.registry import import_submodules

import_submodules(sys.modules[__name__])
