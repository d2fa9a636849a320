"""Ablations: one planned list of (arm, seed) trials, or a search, and what runs it."""
