"""How long torch's CPU threads wait for each other before they sleep."""

from __future__ import annotations

import os
import platform
from collections.abc import MutableMapping

SPINS = 3000
"""Rounds of waiting, each a pause instruction: some 50 microseconds.

Measured with digits on two threads of two AMD cores, torch 2.14. With the cores idle, a step took 35.6 ms with GNU
OpenMP's own 300,000 rounds, 35.5 with 3,000, 38.5 with 1,000 and 52.6 with none. Where other programs kept them busy,
it took 879 ms with 300,000 and 198 with 3,000: a thread that waits for one which has no core keeps the core from it.
"""


def spin_briefly(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let OpenMP's threads sleep soon where the user has not said otherwise; for this process before it imports torch.

    Elsewhere than on x86-64 a round takes another time, and elsewhere than on Linux torch has another OpenMP.
    """
    chosen = {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & environment.keys()
    if not chosen and (platform.system(), platform.machine()) == ("Linux", "x86_64"):
        environment["GOMP_SPINCOUNT"] = str(SPINS)
