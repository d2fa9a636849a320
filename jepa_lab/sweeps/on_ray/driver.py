"""The driver of a Ray cluster: `python -m jepa_lab.sweeps.on_ray.driver WORDS ADDRESS CPUS`.

It connects to ADDRESS, or starts a cluster of this machine with CPUS cores if that is "local". It reads orders from
its standard input and writes what happens to the file descriptor WORDS, a line of JSON each (see `link`). When the
standard input closes, the sweep's process is gone: trials save their state and end, then the driver.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from jepa_lab.sweeps.on_ray import command

_LOOK_SECONDS = 0.2
_NODES_SECONDS = 3.0
_PARTING_SECONDS = 60.0
"""For checkpoints, when the sweep's process is gone."""
_STORE_BYTES = 100 * 2**20
"""For Ray's objects in a cluster of ours, which holds nothing but replies."""

_ENDS = {
    "TaskCancelledError": "cancelled",
    "OutOfMemoryError": "out_of_memory",
    "NodeDiedError": "node_died",
    "LocalRayletDiedError": "node_died",
    "WorkerCrashedError": "worker_died",
}
"""Kind of end by the name of Ray's exception; "failed" for any other."""


class Driver:
    """Starts tasks, cancels them, and tells how they ended."""

    def __init__(self, words: int) -> None:
        self._words = words
        self._orders: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self._jobs: dict[Any, str] = {}  # ObjectRef -> job
        self._told_nodes, self._last_nodes = -float("inf"), ""
        self._leaves_at: float | None = None
        threading.Thread(target=self._listen, daemon=True).start()

    def connect(self, address: str, cpus: int) -> bool:
        """Connect to a cluster or start one; whether it worked, which is told."""
        import ray

        own = {"num_cpus": cpus, "include_dashboard": False, "object_store_memory": _STORE_BYTES}
        try:
            ray.init(address, log_to_driver=False, **(own if address == "local" else {}))
        except Exception as error:  # Ray has no common base for what it raises here
            self._tell(word="unconnected", kind=type(error).__name__, text=str(error))
            return False
        for number in (signal.SIGTERM, signal.SIGINT):  # the sweep's process passes on what they mean
            signal.signal(number, signal.SIG_IGN)
        ray.cloudpickle.register_pickle_by_value(command)
        self._perform = ray.remote(command.perform_command)
        self._tell(word="connected", address=ray.get_runtime_context().gcs_address)
        return True

    def work(self) -> None:
        """Follow orders until there are no more, and every task is over."""
        while not self._is_done():
            self._tell_nodes()
            for order in self._waiting_orders():
                self._follow(order)
            self._look()

    def _is_done(self) -> bool:
        return self._leaves_at is not None and (not self._jobs or time.monotonic() >= self._leaves_at)

    def _listen(self) -> None:
        for line in sys.stdin:
            self._orders.put(json.loads(line))
        self._orders.put(None)

    def _waiting_orders(self) -> Iterator[dict[str, Any] | None]:
        while not self._orders.empty():
            yield self._orders.get()

    def _follow(self, order: dict[str, Any] | None) -> None:
        if order is None:
            self._end(list(self._jobs.values()))
            self._leaves_at = self._leaves_at or time.monotonic() + _PARTING_SECONDS
        elif order["order"] == "start":
            task = self._perform.options(max_retries=0, name=order["job"], **order["options"])
            self._jobs[task.remote(*order["arguments"])] = order["job"]
        elif order["order"] == "end":
            self._end(order["jobs"])
        else:
            self._leaves_at = time.monotonic()

    def _end(self, jobs: list[str]) -> None:
        import ray

        for reference, job in self._jobs.items():
            if job in jobs:
                ray.cancel(reference, force=False, recursive=False)

    def _look(self) -> None:
        import ray

        if not self._jobs:
            time.sleep(_LOOK_SECONDS)
            return
        over, _ = ray.wait(list(self._jobs), num_returns=1, timeout=_LOOK_SECONDS)
        for reference in over:
            job = self._jobs.pop(reference)
            try:
                returned = ray.get(reference)
            except Exception as error:  # each kind of which is told
                end = next((_ENDS[kind.__name__] for kind in type(error).__mro__ if kind.__name__ in _ENDS), "failed")
                self._tell(word="over", job=job, end=end, text=str(error), returned=None)
            else:
                self._tell(word="over", job=job, end="returned", text="", returned=returned)

    def _tell_nodes(self) -> None:
        import ray

        if time.monotonic() - self._told_nodes < _NODES_SECONDS:
            return
        self._told_nodes = time.monotonic()
        nodes = [[node["NodeManagerHostname"], node["Resources"]] for node in ray.nodes() if node["Alive"]]
        text = json.dumps(nodes, sort_keys=True)
        if text != self._last_nodes:
            self._last_nodes = text
            self._tell(word="nodes", nodes=nodes)

    def _tell(self, **words: Any) -> None:
        with contextlib.suppress(BrokenPipeError):  # the sweep's process is gone, as the end of the orders says
            os.write(self._words, json.dumps(words).encode() + b"\n")


def main() -> int:
    """Drive; the exit code."""
    words, address, cpus = sys.argv[1:]
    driver = Driver(int(words))
    if not driver.connect(address, int(cpus)):
        return 1
    driver.work()
    return 0


if __name__ == "__main__":
    sys.exit(main())
