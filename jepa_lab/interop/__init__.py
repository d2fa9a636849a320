"""Weights out of jepa-lab, for programs that know nothing of run folders."""
