"""The local run folder (the truth) and MLflow (its mirror)."""
