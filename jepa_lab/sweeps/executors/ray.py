"""Ray: a task of a cluster for each trial."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any, NoReturn

from pydantic import Field, field_validator

from jepa_lab.errors import ConfigError, JepaLabError, RunStopped
from jepa_lab.registry import ComponentParams, broken_rule
from jepa_lab.sweeps.attempts import Attempt
from jepa_lab.sweeps.executors.base import EXECUTORS, Surroundings
from jepa_lab.sweeps.executors.remote import Flight, RemoteExecutor, importable_here
from jepa_lab.sweeps.on_ray.link import DriverGone, DriverLink, Words
from jepa_lab.sweeps.on_ray.request import Node, Request, described
from jepa_lab.sweeps.resources import Needs
from jepa_lab.sweeps.sharing.slots import num_cores
from jepa_lab.sweeps.tasks import NO_TASK, Reply, Task
from jepa_lab.waiting_threads import spin_briefly

_LOCAL = "local"
_HOST_AND_PORT = re.compile(r"(?P<host>[^/:]+|\[[^/]+\]):(?P<port>\d{1,5})")
_PROBE_SECONDS = 10.0
_CONNECT_SECONDS = 60.0
_START_SECONDS = 180.0
"""For a cluster on this machine, which takes some 8 seconds where nothing else runs."""
_PATIENCE_SECONDS = 15.0
"""After which a request that no node can ever fulfil is worth a sentence: nodes come one after another."""
_MIB = 2**20


@dataclass
class _Hopeless:
    """Requests that no node fulfils, and whether they have been told."""

    requests: Sequence[str] = ()
    since: float = 0.0
    is_told: bool = False

    def is_news(self, requests: Sequence[str]) -> bool:
        """Whether these have been hopeless for a while, once."""
        if list(requests) != list(self.requests):
            self.requests, self.since, self.is_told = requests, time.monotonic(), False
        if not requests or self.is_told or time.monotonic() - self.since < _PATIENCE_SECONDS:
            return False
        self.is_told = True
        return True


@EXECUTORS.register("ray", summary="a task of a Ray cluster for each trial", source="this project, on Ray")
class RayExecutor(RemoteExecutor):
    """Plain tasks without Ray's own retries: the parent alone counts attempts. Workers end with their parent."""

    class Params(ComponentParams):
        address: str | None = Field(
            None,
            description="Cluster to use: HOST:PORT as `ray start --head` prints it, auto for the one that this machine "
            "is a node of, or local to start one on this machine for the time of the sweep; null: $RAY_ADDRESS, or "
            "local where that is not set.",
        )
        slots: int | None = Field(
            None,
            ge=1,
            strict=True,
            description="Trials to submit at once; null: as many as the nodes of the cluster hold now. For a cluster "
            "that grows on demand: as many as it may hold.",
        )
        resources: dict[str, float] = Field(
            {},
            description="Custom resources of Ray that each trial takes, such as `resources.a100=1`: they keep it to "
            "nodes that were started with some of them (ray start --resources).",
        )

        @field_validator("address")
        @classmethod
        def _check_address(cls, value: str | None) -> str | None:
            if value is not None and value not in (_LOCAL, "auto") and _HOST_AND_PORT.fullmatch(value) is None:
                raise broken_rule(
                    f"is local, auto or HOST:PORT, got {value!r}; a machine outside the cluster joins it without work "
                    "by `ray start --address=HOST:PORT --num-cpus=0 --num-gpus=0`"
                )
            return value

        @field_validator("resources")
        @classmethod
        def _check_resources(cls, value: dict[str, float]) -> dict[str, float]:
            for name, amount in value.items():
                if name in ("CPU", "GPU", "memory"):
                    raise broken_rule(f"{name} is not a custom resource; use --cpus, --gpus or --memory")
                if amount <= 0 or (amount > 1 and amount != round(amount)):
                    raise broken_rule(f"{name}: an amount is a whole number, or one between 0 and 1, got {amount:g}")
            return value

    params: Params

    def __init__(self, params: ComponentParams, around: Surroundings) -> None:
        super().__init__(params, around)
        self._log = around.logs / "ray.log"
        self._address, self._found = address_of(self.params), ""
        self._nodes: list[Node] = []
        self._running: set[str] = set()
        self._over: dict[str, Words] = {}
        self._requests: dict[str, Request] = {}  # of tasks that were given more memory, by name
        self._names: dict[int, str] = {}
        self._killed_for_memory: set[int] = set()
        self._news: list[str] = []
        self._hopeless = _Hopeless()
        self._link = DriverLink(self._log, self._address, num_cores(), _driver_environment(self._address))
        try:
            self._wait_for_connection()
        except BaseException:
            self._link.kill()
            raise
        self._first = self._first_request()
        self.sentences = (self._sentence(),)

    @staticmethod
    def planned_slots(params: ComponentParams, needs: Needs) -> int:
        assert isinstance(params, RayExecutor.Params)
        _refuse(needs)
        if params.slots is None and address_of(params) == _LOCAL:
            return max(1, num_cores() // (needs.resources.cpus or 1))
        return params.slots or 1

    @staticmethod
    def shares_gpus(params: ComponentParams, needs: Needs) -> bool:
        return needs.on_gpu and 0 < (needs.resources.gpus or 1) < 1

    @classmethod
    def check_machine(cls, params: ComponentParams, needs: Needs) -> None:
        assert isinstance(params, RayExecutor.Params)
        if find_spec("ray") is None:
            raise ConfigError(
                '--executor ray needs the package ray, which is not installed: pip install "jepa-lab[ray]"'
            )
        found = _HOST_AND_PORT.fullmatch(address_of(params))
        if found is not None:
            _reach(found["host"].strip("[]"), int(found["port"]))

    def capacity(self) -> int:
        self._hear(0.0)
        if self.params.slots is not None:
            return self.params.slots
        return max(1, self._room(self._first))  # with no room, one waits for nodes, which is told

    def launch(self, attempt: Attempt, task: Task) -> str:
        request = self._request(task.name)
        self._names[task.number] = task.name
        environment = {"PYTHONPATH": importable_here(), "OMP_NUM_THREADS": str(request.cpus)}
        if request.gpus == 0:  # Ray then leaves CUDA_VISIBLE_DEVICES unset, which shows all of them
            environment["CUDA_VISIBLE_DEVICES"] = ""
        spin_briefly(environment)
        command = ["-P", "-m", "jepa_lab.sweeps.worker", *attempt.arguments(), "--end-with-stdin"]
        arguments = [command, environment, str(attempt.reply), str(attempt.log)]
        self._link.start(attempt.stem, request.options(), arguments)
        self._running.add(attempt.stem)
        return attempt.stem

    def alive(self) -> Mapping[str, str]:
        self._hear(0.0)
        self._complain()
        return {flight.job: _place(flight) for flight in self._flights.values() if flight.job in self._running}

    def find(self, attempt: Attempt) -> str | None:
        return None  # tasks end with their parent

    def end(self, jobs: Collection[str]) -> None:
        self._link.end(jobs)

    def autopsy(self, flight: Flight) -> Reply:
        over = self._over.pop(flight.attempt.stem)
        log, number = flight.attempt.log, flight.number
        if over["end"] == "returned":
            return _judged(over["returned"], flight)
        hello = flight.attempt.read_hello()
        where = "before it began" if hello is None else f"on {hello.host}"
        said = over["text"].strip().split("\n")[0]
        if over["end"] == "out_of_memory":
            self._killed_for_memory.add(number)
            return Reply(number, "out_of_memory", f"Ray's memory monitor ended it {where}: {said}")
        if over["end"] == "failed":
            return Reply(number, "failed", f"Ray could not run it: {said}; see {log} and {self._log}")
        if over["end"] == "node_died":
            return Reply(number, "died", f"the node of its worker died {where} ({said}); see {log}")
        return Reply(number, "died", f"its Ray worker was killed {where}; see {log}")

    def give_more_memory(self, number: int) -> str | None:
        name = self._names[number]
        request, most = self._request(name), max((node.resources.get("memory", 0) for node in self._nodes), default=0)
        is_main = number in self._killed_for_memory or request.gpus == 0
        more = request.with_more_memory(most) if is_main else request.with_more_gpu()
        if more is None:
            return None
        self._requests[name] = more
        return f"it asks for {more.sentence()} now, in place of {request.sentence()}"

    def news(self) -> Sequence[str]:
        news, self._news = self._news, []
        return news

    def close(self) -> None:
        super().close()
        self._link.close()

    def _wait_for_connection(self) -> None:
        """Raises:
        ConfigError: another version or token is wanted. RunStopped: the cluster cannot be reached.
        """
        seconds = _START_SECONDS if self._address == _LOCAL else _CONNECT_SECONDS
        deadline = time.monotonic() + seconds
        while not self._nodes:
            left = deadline - time.monotonic()
            if left <= 0:
                raise self._unreachable(f"no answer within {seconds:.0f} s")
            self._hear(left)

    def _refuse_connection(self, words: Words) -> NoReturn:
        said = " ".join(words["text"].split())
        if "ersion mismatch" in said:
            raise ConfigError(f"the Ray cluster {self._address} has another version: {said}; install the same on all")
        if words["kind"] == "AuthenticationError":
            raise ConfigError(
                f"the Ray cluster {self._address} wants another token ({said.split('. ')[0]}); copy "
                "~/.ray/auth_token of its head node to this machine, or set RAY_AUTH_TOKEN_PATH, and "
                "set RAY_AUTH_MODE=token"
            )
        raise self._unreachable(said)

    def _unreachable(self, why: str) -> JepaLabError:
        if self._address == _LOCAL:
            return RunStopped(f"Ray could not start a cluster on this machine ({why}); see {self._log}")
        return RunStopped(
            f"the Ray cluster {self._address} cannot be reached ({why}); see {self._log}, try `ray status "
            "--address=HOST:PORT` on this machine, and run the same command again"
        )

    def _first_request(self) -> Request:
        asked = self.around.needs.resources
        gpus = asked.gpus
        if gpus is None:  # training.device=auto uses a GPU where there is one
            gpus = 1.0 if self.around.needs.on_gpu and any(node.resources.get("GPU") for node in self._nodes) else 0.0
        memory = None if asked.memory_mib is None else asked.memory_mib * _MIB
        return Request(asked.cpus or 1, gpus, memory, self.params.resources)

    def _request(self, name: str) -> Request:
        return self._requests.get(name, self._first)

    def _room(self, request: Request) -> int:
        return sum(request.room(node) for node in self._nodes)

    def _sentence(self) -> str:
        cpus, gpus = (sum(node.resources.get(name, 0) for node in self._nodes) for name in ("CPU", "GPU"))
        whose = "a Ray cluster of its own" if self._address == _LOCAL else f"the Ray cluster {self._found}"
        nodes = f"{len(self._nodes)} node{'' if len(self._nodes) == 1 else 's'}, {described(cpus, gpus, None, {})}"
        return (
            f"{whose}: {nodes}; each trial gets {self._first.sentence()}, "
            f"so that {self._room(self._first)} run in parallel"
        )

    def _hear(self, seconds: float) -> None:
        """Listen to the driver.

        Raises:
            ConfigError, RunStopped: it could not connect, or has lost the cluster.
        """
        handlers: dict[str, Callable[[Words], None]] = {
            "connected": self._on_connected,
            "unconnected": self._refuse_connection,
            "nodes": self._on_nodes,
            "over": self._on_over,
        }
        try:
            for words in self._link.listen(seconds):
                handlers[words["word"]](words)
        except DriverGone:
            raise self._lost() from None

    def _on_connected(self, words: Words) -> None:
        self._found = words["address"]

    def _on_nodes(self, words: Words) -> None:
        self._nodes = [Node(name, resources) for name, resources in words["nodes"]]

    def _on_over(self, words: Words) -> None:
        self._running.discard(words["job"])
        if any(flight.job == words["job"] for flight in self._flights.values()):  # else its reply was faster
            self._over[words["job"]] = words

    def _lost(self) -> JepaLabError:
        if not self._found:
            return self._unreachable("Ray ended")
        return RunStopped(
            f"the Ray cluster {self._found} is lost; see {self._log}. What the trials have saved stays: run the same "
            "command again to resume, once the cluster is back"
        )

    def _complain(self) -> None:
        """Say of what waits for what no node has."""
        requests = {self._request(self._names[number]).sentence(): number for number in self._flights}
        hopeless = [text for text, number in requests.items() if not self._room(self._request(self._names[number]))]
        if self._hopeless.is_news(hopeless):
            there = "; ".join(node.sentence() for node in self._nodes)
            self._news += [
                f"waiting for a node with {text}: the Ray cluster has none ({there}); start one, or stop this command "
                "and ask for less"
                for text in hopeless
            ]


def _place(flight: Flight) -> str:
    hello = flight.attempt.read_hello()
    return f"{flight.job} waits" if hello is None else f"{flight.job} on {hello.host}"


def address_of(params: RayExecutor.Params) -> str:
    """The cluster that is meant: "local", "auto" or HOST:PORT.

    Raises:
        ConfigError: RAY_ADDRESS is none of these.
    """
    given = params.address or os.environ.get("RAY_ADDRESS") or _LOCAL
    if given not in (_LOCAL, "auto") and _HOST_AND_PORT.fullmatch(given) is None:
        raise ConfigError(
            f"RAY_ADDRESS is {given!r}, and must be local, auto or HOST:PORT; --executor-option address= goes before it"
        )
    return given


def _refuse(needs: Needs) -> None:
    """Raises:
    ConfigError: a resource that Ray would not keep to, or that a trial cannot use.
    """
    asked = needs.resources
    if asked.time is not None:
        raise ConfigError(
            f"--time {asked.time}: Ray sets tasks no limit of time; leave it out, or use an engine that does "
            "(--executor slurm)"
        )
    if asked.gpus and not needs.on_gpu:
        raise ConfigError(f"--gpus {asked.gpus:g} needs a GPU, and training.device=cpu uses none; leave it out")
    if asked.gpus is not None and asked.gpus > 1:
        raise ConfigError(f"--gpus {asked.gpus:g}: a trial uses one GPU; give 1, or a part such as 0.5")


def _reach(host: str, port: int) -> None:
    """Raises:
    RunStopped: nothing answers there.
    """
    try:
        socket.create_connection((host, port), timeout=_PROBE_SECONDS).close()
    except OSError as error:
        raise RunStopped(
            f"no Ray cluster answers at {host}:{port} ({error.strerror or error}); start one there with `ray start "
            "--head`, or give the address that it printed"
        ) from None


def _driver_environment(address: str) -> dict[str, str]:
    """A cluster of our own sends no statistics of its use."""
    quiet = {"RAY_USAGE_STATS_ENABLED": "0"} if address == _LOCAL else {}
    return {**os.environ, **quiet, "PYTHONPATH": importable_here()}


def _judged(returned: Mapping[str, Any], flight: Flight) -> Reply:
    """What a command that ended by itself means; its reply may not be seen here yet."""
    number, host, log = flight.number, returned["host"], flight.attempt.log
    if returned["reply"] is not None:
        return Reply.from_json(returned["reply"])
    code = returned["code"]
    if code is None:
        return Reply(number, "refused", f"{host} cannot write {returned['error']}; {_SHARED}")
    if code == NO_TASK:
        return Reply(number, "refused", f"{host} does not see {flight.attempt.task}; {_SHARED}")
    if code > 0 and flight.attempt.read_hello() is None:
        return Reply(number, "refused", f"{host} cannot start a worker ({returned['last']}); see {log}")
    how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
    return Reply(number, "died", f"its worker on {host} {how}; see {log}")


_SHARED = "put the sweep on a file system that all machines share, under the same path (--sweeps)"
