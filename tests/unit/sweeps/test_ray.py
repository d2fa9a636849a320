"""What a trial asks of Ray, and how its end is judged; sweeps on real clusters are in tests/integration/test_ray.py."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import pytest

from jepa_lab.errors import ConfigError, RunStopped
from jepa_lab.sweeps.engine import NO_ENGINE_SETTINGS, Engine, EngineChoice, choose_engine
from jepa_lab.sweeps.executors.ray import RayExecutor
from jepa_lab.sweeps.on_ray.command import perform_command
from jepa_lab.sweeps.on_ray.request import Node, Request

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
