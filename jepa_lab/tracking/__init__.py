"""The local run folder (the truth) and MLflow (its mirror)."""

# Importing a tracker registers it. The other modules are not components, and `mirror` is run as a program.
from jepa_lab.tracking import mlflow_tracker as mlflow_tracker
from jepa_lab.tracking import none as none
