"""The executor of this machine keeps what executors keep; those of clusters are tested with their clusters."""

from __future__ import annotations

from jepa_lab.sweeps.executors.local import LocalExecutor
from jepa_lab.testing import ExecutorContract


class TestLocal(ExecutorContract):
    component = LocalExecutor
    settings = {"slots": 1}  # noqa: RUF012
