"""Probes: what a frozen encoder is worth, measured honestly."""
