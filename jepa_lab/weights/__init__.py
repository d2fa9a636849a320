"""Weights of encoders as parts that any library can be given, and where they come from."""
