"""Threads that wait for each other go to sleep soon, unless the user has chosen."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from jepa_lab.waiting_threads import SPINS, spin_briefly

CHOICES = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}


@pytest.fixture
def on_x86_linux(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr("platform.machine", lambda: "x86_64")


@pytest.mark.usefixtures("on_x86_linux")
@pytest.mark.parametrize("chosen", [{"OMP_WAIT_POLICY": "active"}, {"GOMP_SPINCOUNT": "7"}])
def test_what_the_user_has_chosen_stays(chosen: dict[str, str]) -> None:
    environment = dict(chosen)
    spin_briefly(environment)
    assert environment == chosen


@pytest.mark.usefixtures("on_x86_linux")
def test_threads_sleep_soon_where_nothing_was_chosen() -> None:
    environment: dict[str, str] = {}
    spin_briefly(environment)
    assert environment == {"GOMP_SPINCOUNT": str(SPINS)}


@pytest.mark.parametrize("known", [("Linux", "aarch64"), ("Darwin", "x86_64")])
def test_systems_of_which_nothing_was_measured_keep_their_own(
    known: tuple[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.system", lambda: known[0])
    monkeypatch.setattr("platform.machine", lambda: known[1])
    environment: dict[str, str] = {}
    spin_briefly(environment)
    assert environment == {}


def test_a_command_chooses_before_torch_is_imported() -> None:
    code = (
        "import os, sys, platform; platform.system = lambda: 'Linux'; platform.machine = lambda: 'x86_64'; "
        "from jepa_lab.cli import main; main(['--version'], standalone_mode=False); "
        "print(os.environ['GOMP_SPINCOUNT'], 'torch' in sys.modules)"
    )
    environment = {name: value for name, value in os.environ.items() if name not in CHOICES}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-2:] == [str(SPINS), "False"]
