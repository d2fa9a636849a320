"""The worker of a slot: a signal is never lost between two runs."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from jepa_lab.sweeps.stop_between_runs import StopBetweenRuns


@pytest.fixture(autouse=True)
def _handler() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def test_a_signal_that_comes_between_two_runs_keeps_the_next_one_from_beginning() -> None:
    stop = StopBetweenRuns()
    stop.listen()
    os.kill(os.getpid(), signal.SIGTERM)
    assert not stop.release()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_signal_is_for_one_run_alone() -> None:
    stop = StopBetweenRuns()
    stop.listen()
    os.kill(os.getpid(), signal.SIGTERM)
    stop.release()
    stop.listen()
    assert stop.release()
