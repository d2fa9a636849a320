"""What a trial asks of Ray, and how its end is judged; sweeps on real clusters are in tests/integration/test_ray.py."""

from __future__ import annotations

import os
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest

from jepa_lab.errors import ConfigError, RunStopped
from jepa_lab.sweeps.engine import NO_ENGINE_SETTINGS, Engine, EngineChoice, choose_engine
from jepa_lab.sweeps.executors.ray import RayExecutor
from jepa_lab.sweeps.folder import SweepFolder
from jepa_lab.sweeps.on_ray.command import perform_command
from jepa_lab.sweeps.on_ray.link import DriverGone, Words
from jepa_lab.sweeps.on_ray.request import Node, Request
from jepa_lab.sweeps.tasks import Task

GIB = 2**30
BIG = Node("big", {"CPU": 8.0, "GPU": 2.0, "memory": 64.0 * GIB, "a100": 2.0, "node:10.0.0.1": 1.0})


def chosen(*options: str, on_gpu: bool = False, **resources: object) -> Engine:
    choice = EngineChoice("ray", options, **resources)  # type: ignore[arg-type]
    return choose_engine(NO_ENGINE_SETTINGS, choice, on_gpu)


@pytest.mark.parametrize(
    ("request_", "room"),
    [
        (Request(1, 0, None), 8),
        (Request(3, 0, None), 2),
        (Request(1, 0.5, None), 4),
        (Request(1, 0.4, None), 4),  # 0.2 of each GPU stay free: no trial spans two
        (Request(1, 1, None), 2),
        (Request(1, 0, 30 * GIB), 2),
        (Request(1, 0, 65 * GIB), 0),
        (Request(1, 0, None, {"a100": 1}), 2),
        (Request(1, 0, None, {"h100": 0.1}), 0),
    ],
)
def test_a_node_holds_what_its_scarcest_resource_allows(request_: Request, room: int) -> None:
    assert request_.room(BIG) == room


def test_more_memory_doubles_and_ends_at_what_the_largest_node_has() -> None:
    asked: Request | None = Request(1, 0.25, None)
    seen = []
    while (asked := asked.with_more_memory(24 * GIB)) is not None:  # type: ignore[union-attr]
        seen.append(asked.memory)
    assert seen == [12 * GIB, 24 * GIB]
    assert Request(1, 0.25, None).with_more_gpu() == Request(1, 0.5, None)
    assert Request(1, 1, None).with_more_gpu() is None


@pytest.mark.parametrize(
    ("engine", "words"),
    [
        (lambda: chosen(time="2h"), "--time 2h: Ray sets tasks no limit of time"),
        (lambda: chosen(gpus=0.5), "--gpus 0.5 needs a GPU, and training.device=cpu uses none"),
        (lambda: chosen(gpus=2.0, on_gpu=True), "--gpus 2: a trial uses one GPU"),
        (lambda: chosen("address=ray://head:10001"), "ray start --address=HOST:PORT --num-cpus=0"),
        (lambda: chosen("resources.CPU=2"), "CPU is not a custom resource; use --cpus"),
        (lambda: chosen("resources.a100=1.5"), "a whole number, or one between 0 and 1, got 1.5"),
    ],
)
def test_what_ray_would_not_keep_to_is_refused(engine: object, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        engine()  # type: ignore[operator]
    assert words in str(caught.value)


def test_the_address_is_that_of_the_environment_where_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "http://head:8265")
    with pytest.raises(ConfigError, match="RAY_ADDRESS is 'http://head:8265', and must be local, auto or HOST:PORT"):
        chosen()
    chosen("address=local")


def test_an_address_where_nothing_answers_is_refused_before_anything_is_written() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
        with pytest.raises(RunStopped, match=f"no Ray cluster answers at 127.0.0.1:{port}"):
            chosen(f"address=127.0.0.1:{port}").check_machine()


def test_a_missing_package_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jepa_lab.sweeps.executors.ray.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r'pip install "jepa-lab\[ray\]"'):
        chosen().check_machine()


class FakeLink:
    """A driver that says what a test lets it say."""

    words: ClassVar[list[Words]] = []

    def __init__(self, *arguments: object) -> None:
        self.started: list[tuple[str, dict[str, Any], list[Any]]] = []

    def start(self, job: str, options: dict[str, Any], arguments: list[Any]) -> None:
        self.started.append((job, options, arguments))

    def listen(self, seconds: float) -> list[Words]:
        said, self.words[:] = list(self.words), []
        if said and said[-1]["word"] == "gone":
            raise DriverGone
        return said

    def end(self, jobs: list[str]) -> None: ...
    def close(self) -> None: ...
    def kill(self) -> None: ...


def nodes(*found: Node) -> Words:
    return {"word": "nodes", "nodes": [[node.name, dict(node.resources)] for node in found]}


@pytest.fixture
def executor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., RayExecutor]:
    monkeypatch.setattr("jepa_lab.sweeps.executors.ray.DriverLink", FakeLink)
    folder = SweepFolder.open_or_create(tmp_path, "s-1", "a: 1\n", {"name": "s"})

    def build(*words: Words, on_gpu: bool = False, **resources: object) -> RayExecutor:
        monkeypatch.setattr(FakeLink, "words", list(words) or [{"word": "connected", "address": "h:1"}, nodes(BIG)])
        built = chosen("address=h:1", on_gpu=on_gpu, **resources).build(folder)
        assert isinstance(built, RayExecutor)
        return built

    return build


def submitted(built: RayExecutor) -> FakeLink:
    built.submit(Task(0, "arm-0000", Path("config.yaml"), Path("runs"), Path("claim"), {}, {}))
    link = built._link
    assert isinstance(link, FakeLink)
    return link


def over(end: str, job: str = "arm-0000-1", text: str = "", **returned: object) -> Words:
    content = {"host": "node7", "code": 0, "error": None, "reply": None, "last": ""} | returned
    return {"word": "over", "job": job, "end": end, "text": text, "returned": content if end == "returned" else None}


@pytest.mark.parametrize(
    ("words", "outcome", "message"),
    [
        (over("returned", reply='{"number": 0, "outcome": "finished", "message": ""}'), "finished", ""),
        (over("returned", code=66), "refused", "node7 does not see "),
        (over("returned", code=None, error="/s/log: No such file"), "refused", "node7 cannot write /s/log: No such"),
        (over("returned", code=1, last="No module named 'torch'"), "refused", "a worker (No module named 'torch')"),
        (over("returned", code=-9), "died", "its worker on node7 was killed by signal 9; see "),
        (over("worker_died"), "died", "its Ray worker was killed before it began; see "),
        (
            over("node_died", text="The node died\nmore"),
            "died",
            "node of its worker died before it began (The node died)",
        ),
        (over("failed", text="No space left"), "failed", "Ray could not run it: No space left; see "),
    ],
)
def test_the_end_of_a_task_is_told_with_its_node_and_its_log(
    executor: Callable[..., RayExecutor], words: Words, outcome: str, message: str
) -> None:
    built = executor()
    link = submitted(built)
    link.words.append(words)
    (reply,) = built.poll(5)
    assert (reply.number, reply.outcome) == (0, outcome)
    assert message in reply.message


def test_a_task_without_gpus_sees_none_and_its_threads_are_its_cores(executor: Callable[..., RayExecutor]) -> None:
    link = submitted(executor(cpus=3))
    ((job, options, (command, environment, reply, log)),) = link.started
    assert (job, options["num_cpus"], options["num_gpus"]) == ("arm-0000-1", 3, 0)
    assert (environment["CUDA_VISIBLE_DEVICES"], environment["OMP_NUM_THREADS"]) == ("", "3")
    assert command[-1] == "--end-with-stdin"
    assert (Path(reply).name, Path(log).name) == ("arm-0000-1.reply", "arm-0000-1.log")


def test_a_gpu_is_asked_for_where_the_cluster_has_some_and_trials_may_use_one(
    executor: Callable[..., RayExecutor],
) -> None:
    link = submitted(executor(on_gpu=True))
    assert link.started[0][1]["num_gpus"] == 1
    assert "CUDA_VISIBLE_DEVICES" not in link.started[0][2][1]
    small = Node("small", {"CPU": 1.0})
    link = submitted(executor({"word": "connected", "address": "h:1"}, nodes(small), on_gpu=True))
    assert link.started[0][1]["num_gpus"] == 0


def test_a_trial_that_the_memory_monitor_ended_asks_for_more_up_to_the_largest_node(
    executor: Callable[..., RayExecutor],
) -> None:
    built = executor(memory="20G")
    said = []
    for count in (1, 2, 3):
        link = submitted(built)
        link.words.append(over("out_of_memory", f"arm-0000-{count}", "Task was killed due to the node running low"))
        (reply,) = built.poll(5)
        assert reply.outcome == "out_of_memory"
        said.append(built.give_more_memory(0))
    assert said[0] == "it asks for 1 CPU, 40.0 GiB of memory now, in place of 1 CPU, 20.0 GiB of memory"
    assert said[1] == "it asks for 1 CPU, 64.0 GiB of memory now, in place of 1 CPU, 40.0 GiB of memory"
    assert said[2] is None
    assert [options["memory"] for _, options, _ in link.started] == [20 * GIB, 40 * GIB, 64 * GIB]


def test_a_trial_that_filled_its_part_of_a_gpu_asks_for_a_larger_one(executor: Callable[..., RayExecutor]) -> None:
    built = executor(on_gpu=True, gpus=0.5)
    submitted(built)
    assert built.give_more_memory(0) == "it asks for 1 CPU, 1 GPU now, in place of 1 CPU, 0.5 GPUs"
    assert built.give_more_memory(0) is None


def test_the_capacity_follows_the_nodes_and_what_no_node_has_is_told_once(
    executor: Callable[..., RayExecutor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jepa_lab.sweeps.executors.ray._PATIENCE_SECONDS", 0.0)
    built = executor(memory="24G")
    assert built.capacity() == 2
    link = submitted(built)
    small = Node("small", {"CPU": 4.0, "memory": 16.0 * GIB})
    link.words.append(nodes(BIG, small, BIG))
    assert built.capacity() == 4
    assert built.news() == []
    link.words.append(nodes(small))
    assert built.capacity() == 1  # one waits, and is told of
    built.poll(0.5)
    built.poll(0.5)
    assert built.news() == [
        "waiting for a node with 1 CPU, 24.0 GiB of memory: the Ray cluster has none (small: 4 CPUs, 16.0 GiB of "
        "memory); start one, or stop this command and ask for less"
    ]
    assert built.news() == []


@pytest.mark.parametrize(
    ("words", "kind", "message"),
    [
        ({"kind": "RuntimeError", "text": "Version mismatch: The\ncluster"}, ConfigError, "another version: Version"),
        (
            {"kind": "AuthenticationError", "text": "Invalid token"},
            ConfigError,
            "wants another token (Invalid token); copy",
        ),
        ({"kind": "ConnectionError", "text": "no\nanswer"}, RunStopped, "h:1 cannot be reached (no answer); see"),
    ],
)
def test_a_cluster_that_cannot_be_used_is_one_sentence(
    executor: Callable[..., RayExecutor], words: Words, kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind) as caught:
        executor({"word": "unconnected", **words})
    assert message in str(caught.value)


def test_a_cluster_that_is_lost_ends_the_sweep_which_can_be_resumed(executor: Callable[..., RayExecutor]) -> None:
    built = executor()
    link = submitted(built)
    link.words.append({"word": "gone"})
    with pytest.raises(RunStopped, match=r"the Ray cluster h:1 is lost; see .*run the same command again to resume"):
        built.poll(5)


def command(tmp_path: Path, code: str) -> dict[str, object]:
    return perform_command(["-c", code], {"GIVEN": "yes"}, str(tmp_path / "reply"), str(tmp_path / "log"))


def test_a_command_tells_how_it_ended(tmp_path: Path) -> None:
    code = "import os, sys; open('reply', 'w').write('text'); print(os.environ['GIVEN']); sys.exit(3)"
    returned = command(tmp_path, f"import os; os.chdir({str(tmp_path)!r}); {code}")
    assert returned == {"host": socket.gethostname(), "code": 3, "error": None, "reply": "text", "last": "yes"}


def test_a_command_whose_log_cannot_be_written_is_not_begun(tmp_path: Path) -> None:
    returned = command(tmp_path / "missing", "raise AssertionError")
    assert returned["code"] is None
    assert "No such file" in str(returned["error"])


def test_a_cancellation_reaches_the_command_as_sigterm(tmp_path: Path) -> None:
    code = (
        "import os, signal, time; signal.signal(signal.SIGTERM, lambda *_: os._exit(7)); "
        f"os.kill({os.getpid()}, signal.SIGUSR1); time.sleep(60)"
    )

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        began = time.monotonic()
        assert command(tmp_path, code)["code"] == 7
        assert time.monotonic() - began < 60
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_an_executor_is_named_by_its_component() -> None:
    assert chosen("slots=3").component is RayExecutor
    assert chosen("slots=3").planned_slots() == 3
