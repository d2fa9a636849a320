"""Pictures of what a run does, each written as one PNG; matplotlib is imported inside the functions."""
