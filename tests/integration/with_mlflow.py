"""What tests that start MLflow share: the warnings of its dependencies, and an environment that is put back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

MLFLOW_WARNINGS = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning:mlflow"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # SQLite connections in SQLAlchemy's pools
]


@contextmanager
def kept_environment(**values: str) -> Iterator[None]:
    """Set variables; afterwards put all back, as `quiet_mlflow` sets MLflow's for the whole process."""
    before = dict(os.environ)
    os.environ.update(values)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)
