"""The tracker goes away: a real MLflow server behind a proxy that fails. Nothing is lost, nothing comes twice."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import click.testing
import pytest

from jepa_lab.cli import main
from jepa_lab.tracking import mlflow_mirror
from jepa_lab.tracking.description import DatasetRecord, RunDescription, TrackerSettings
from jepa_lab.tracking.locks import FileLock
from jepa_lab.tracking.metrics import MetricsWriter, read_metrics
from jepa_lab.tracking.mirror import sync
from jepa_lab.tracking.mirror_cursor import mirror_state
from jepa_lab.tracking.mlflow_calls import TrackerAway
from jepa_lab.tracking.mlflow_mirror import Mirror
from jepa_lab.tracking.mlflow_names import legal_params
from jepa_lab.tracking.run_folder import RunFolder
from tests.integration.fault_proxy import FAULTS, Fault, FaultProxy, wait_until
from tests.integration.mlflow_server import MlflowServer
from tests.integration.pipelines import write_tiny
from tests.integration.with_mlflow import MLFLOW_WARNINGS, kept_environment

pytestmark = MLFLOW_WARNINGS


@pytest.fixture(scope="module", autouse=True)
def _environment() -> Iterator[None]:
    with kept_environment(NO_PROXY="127.0.0.1", OMP_NUM_THREADS="1"):
        yield


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """One server for the module, because starting one takes many seconds."""
    started = MlflowServer(tmp_path_factory.mktemp("server"))
    yield started
    started.kill()


@pytest.fixture
def proxy(server: MlflowServer) -> Iterator[FaultProxy]:
    """A proxy without faults in front of the server."""
    made = FaultProxy(server.port)
    yield made
    made.close()


def _folder(root: Path, uri: str) -> RunFolder:
    """A run that has begun and logged nothing yet."""
    made = RunFolder.create(root, "tiny", "0123456789", 0, "name: tiny\n")
    params = {f"section.key_{number}": str(number) for number in range(110)}
    tags = {"masker": "multi_block", "seed": "0"}
    dataset = DatasetRecord("digits", "scikit-learn", "d" * 36)
    settings = TrackerSettings(uri, None, "faults", None, 0.1)
    made.write_description(RunDescription(params, tags, dataset, settings))
    return made


@pytest.fixture
def folder(tmp_path: Path, proxy: FaultProxy) -> RunFolder:
    return _folder(tmp_path / "runs", proxy.uri)


def _log(folder: RunFolder, steps: range) -> None:
    with MetricsWriter(folder.metrics, None) as writer:
        for step in steps:
            odd = None if step % 2 else float("nan") if step % 4 else float("inf")
            writer.append(step, step / 100, {"train/loss": 1 / (step + 1), "lr": 1e-3 * step, "probe/odd": odd})


def _finish(folder: RunFolder, last_step: int) -> None:
    checkpoint = folder.checkpoints / f"step-{last_step:08d}"
    checkpoint.mkdir()
    (checkpoint / "model.safetensors").write_bytes(b"weights")
    (folder.figures / "confusion.png").write_bytes(b"png")
    folder.write_result("FINISHED", {"test/accuracy": 0.75}, last_step, checkpoint)


def _assert_record_is_complete_once(server: MlflowServer, folder: RunFolder, status: str = "FINISHED") -> str:
    """The server's own database holds one run with every row, param, tag and file of the folder, each once."""
    description = folder.read_description()
    ((run_id,),) = server.sql(
        "SELECT r.run_uuid FROM runs r JOIN tags t USING (run_uuid)"
        " WHERE t.key = 'jepa_lab.run_uid' AND t.value = ? AND r.lifecycle_stage = 'active'",
        description.run_uid,
    )
    assert isinstance(run_id, str)
    points = [(row.step, name) for row in read_metrics(folder.metrics) for name, value in row.metrics.items()
              if value is not None]  # fmt: skip
    result = folder.read_result()
    if result is not None:
        points += [(result["last_step"], name) for name, value in result["metrics"].items() if value is not None]
    stored = server.sql("SELECT step, key FROM metrics WHERE run_uuid = ?", run_id)
    assert Counter(stored) == Counter(points)
    stored_params = dict(server.sql("SELECT key, value FROM params WHERE run_uuid = ?", run_id))
    assert stored_params == legal_params(description.params)[0]
    tags = dict(server.sql("SELECT key, value FROM tags WHERE run_uuid = ?", run_id))
    assert description.tags.items() <= tags.items()
    assert server.sql("SELECT status FROM runs WHERE run_uuid = ?", run_id) == [(status,)]
    assert len(server.sql("SELECT 1 FROM inputs WHERE destination_id = ? AND source_type = 'DATASET'", run_id)) == 1
    ((experiment,),) = server.sql("SELECT experiment_id FROM runs WHERE run_uuid = ?", run_id)
    artifacts = server.root / "artifacts" / str(experiment) / run_id / "artifacts"
    for file in [folder.config, *folder.figures.iterdir(), *([folder.result] if result else [])]:
        assert (artifacts / file.relative_to(folder.path)).read_bytes() == file.read_bytes()
    if result is not None and result["final_checkpoint"] is not None:
        models = server.sql(
            "SELECT model_id, status FROM logged_models WHERE source_run_id = ? AND lifecycle_stage = 'active'", run_id
        )
        assert len(models) == 1
        weights = server.root / "artifacts" / str(experiment) / "models" / str(models[0][0]) / "artifacts"
        assert (weights / "model.safetensors").read_bytes() == (
            folder.path / result["final_checkpoint"] / "model.safetensors"
        ).read_bytes()
    return run_id


def _sync_until_complete(folder: RunFolder, attempts: int = 40) -> int:
    """Sync as often as it takes; how often it failed."""
    for failed in range(attempts):
        if sync(folder.path).complete:
            return failed
    raise AssertionError(f"not complete after {attempts} attempts: {mirror_state(folder)}")


_ENDPOINTS = ("experiments/get-by-name", "runs/search", "runs/create", "runs/get", "log-batch", "log-inputs",
              "mlflow-artifacts/artifacts", "logged-models", "runs/update")  # fmt: skip


# One fault of each kind at every `make test`, the others with the slow tests.
_COMMON = ("error 500", "too many requests for an hour", "HTML with status 200", "an empty body with status 200",
           "a lost acknowledgement")  # fmt: skip
_EACH_FAULT = [
    pytest.param(name, marks=[] if name in _COMMON else [pytest.mark.slow]) for name in FAULTS if "slow" not in name
]


@pytest.mark.parametrize("name", _EACH_FAULT)
def test_every_request_may_fail_and_the_record_is_complete_once(
    server: MlflowServer, proxy: FaultProxy, folder: RunFolder, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mlflow_mirror, "MAX_METRICS_PER_BATCH", 40)
    _log(folder, range(20))
    Mirror(folder).push(ended=False)
    _log(folder, range(20, 60))
    _finish(folder, 59)
    for endpoint in _ENDPOINTS:
        proxy.plan(FAULTS[name], endpoint)
    proxy.plan(FAULTS[name], "log-batch", after=1)
    proxy.plan(FAULTS[name], "runs/get", after=2)
    assert _sync_until_complete(folder) >= 5
    _assert_record_is_complete_once(server, folder)
    assert max(Counter(proxy.logged).values()) == 1


@pytest.mark.parametrize("name", ["a lost acknowledgement", "an answer that is too slow", "error 500"])
def test_a_run_that_is_made_while_the_tracker_fails_is_one_run(
    server: MlflowServer, proxy: FaultProxy, folder: RunFolder, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if "slow" in name:
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    _log(folder, range(20))
    _finish(folder, 19)
    for endpoint in ("experiments/create", "runs/create", "log-batch", "logged-models"):
        proxy.plan(FAULTS[name], endpoint)
    assert _sync_until_complete(folder) >= 3
    _assert_record_is_complete_once(server, folder)


def test_a_server_that_takes_its_time_is_waited_for(proxy: FaultProxy, folder: RunFolder) -> None:
    _log(folder, range(10))
    proxy.plan(Fault(delay_seconds=1.5), "log-batch")
    Mirror(folder).push(ended=False)
    assert mirror_state(folder).rows_behind == 0


def test_after_a_restart_the_tracker_is_asked_once_and_not_for_the_whole_history(
    proxy: FaultProxy, folder: RunFolder
) -> None:
    _log(folder, range(300))
    Mirror(folder).push(ended=False)
    _log(folder, range(300, 310))
    before = len(proxy.requests)
    Mirror(folder).push(ended=False)  # a mirror process that was started again
    paths = [path.partition("?")[0].removeprefix("/api/2.0/mlflow/") for _, path in proxy.requests[before:]]
    assert paths == ["runs/get", "runs/log-batch", "runs/get"]


@pytest.mark.parametrize("name", ["too many requests for an hour", "error 500"])
def test_a_tracker_in_trouble_is_reported_by_its_own_words(proxy: FaultProxy, folder: RunFolder, name: str) -> None:
    _log(folder, range(5))
    proxy.plan(FAULTS[name], times=float("inf"))
    state = sync(folder.path)
    assert (state.complete, state.rows_behind) == (False, 5)
    assert str(FAULTS[name].status) in str(state.error)


def test_a_gone_server_loses_nothing(server: MlflowServer, proxy: FaultProxy, folder: RunFolder) -> None:
    _log(folder, range(5))
    with proxy.gone():
        with pytest.raises(TrackerAway, match="refused"):
            Mirror(folder).push(ended=False)
        _log(folder, range(5, 9))
        _finish(folder, 8)
        assert sync(folder.path).rows_behind == 9
    assert sync(folder.path).complete
    _assert_record_is_complete_once(server, folder)


@pytest.fixture
def no_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run must not talk to anybody; the processes that it starts may, and the proxy's threads."""
    real = socket.socket.connect

    def refuse(connection: socket.socket, address: object) -> None:
        assert threading.current_thread() is not threading.main_thread(), "the run opened a connection"
        real(connection, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket.socket, "connect", refuse)


def _invoke(*arguments: str | Path) -> click.testing.Result:
    return click.testing.CliRunner().invoke(main, [str(argument) for argument in arguments])


def _run_steps(folder: RunFolder) -> list[tuple[int, float | None]]:
    return [(row.step, row.metrics.get("train/loss")) for row in read_metrics(folder.metrics)]


@pytest.mark.usefixtures("no_sockets")
def test_a_run_whose_server_never_answers_is_the_same_run(
    server: MlflowServer, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jepa_lab.composition.run._TRACKER_TIMEOUT_SECONDS", 0.1)
    proxy.plan(Fault(silent=True), times=float("inf"))
    file = write_tiny(tmp_path)
    alone = _invoke("run", file, "--runs", tmp_path / "alone")
    assert alone.exit_code == 0, alone.output
    mirrored = _invoke("run", file, _tracking(proxy), "--runs", tmp_path / "runs")
    assert mirrored.exit_code == 0, mirrored.output
    assert f"sending the rest to {proxy.uri}" in mirrored.output
    folder = RunFolder.open(next((tmp_path / "runs").iterdir()))
    assert f"jepa-lab sync {folder.path}" in mirrored.output
    assert _run_steps(folder) == _run_steps(RunFolder.open(next((tmp_path / "alone").iterdir())))
    assert wait_until(lambda: len(proxy.requests) > 0)  # the mirror process did try
    assert not mirror_state(folder).complete
    proxy.mend()
    assert wait_until(lambda: mirror_state(folder).complete)  # by the mirror process, which outlives the run
    _assert_record_is_complete_once(server, folder)


def test_sync_without_arguments_completes_every_run_that_needs_it(
    server: MlflowServer, proxy: FaultProxy, tmp_path: Path
) -> None:
    root = tmp_path / "runs"
    ended, killed, alive, unmirrored = (_folder(root / group, proxy.uri) for group in ("", "sweep", "", ""))
    unmirrored.write_description(RunDescription({}, {}, tracker=None))
    for folder in (ended, killed, alive):
        _log(folder, range(3))
    _finish(ended, 2)
    with FileLock(alive.path / "run.lock", "the run") as lock:
        lock.acquire(0)
        proxy.plan(FAULTS["error 500"], "runs/create")
        first = _invoke("sync", "--runs", root)
        assert first.exit_code == 3, first.output
        assert len(first.output.splitlines()) == 2, first.output
        assert first.output.count("the tracker has everything of") == 1
        second = _invoke("sync", "--runs", root)
        assert second.exit_code == 0, second.output
        assert len(second.output.splitlines()) == 1
        third = _invoke("sync", "--runs", root)
        assert (third.exit_code, len(third.output.splitlines())) == (0, 1)
        assert "nothing to do" in third.output
    _assert_record_is_complete_once(server, ended)
    _assert_record_is_complete_once(server, killed, status="KILLED")
    assert not alive.mirror.exists()


def test_sync_of_what_is_no_run_is_exit_code_2_and_nothing_is_sent(
    proxy: FaultProxy, folder: RunFolder, tmp_path: Path
) -> None:
    assert _invoke("sync", folder.path, tmp_path).exit_code == 2
    assert _invoke("sync", "--runs", tmp_path / "nowhere").exit_code == 2
    assert proxy.requests == []
    other = _folder(tmp_path / "runs", proxy.uri)
    other.description.write_bytes(b"{")
    result = _invoke("sync", other.path, folder.path)  # a damaged one does not keep the others from being completed
    assert result.exit_code == 2
    assert "error:" in result.output
    assert f"the tracker has everything of {folder.path}" in result.output


# Percent-encoded '@', ':', '%' and '/', letters that need no encoding, and a word to look for.
_SECRET = "p%40%3A%25%2Fw'!$&(*+,;=)S3CRET"
_TRACES = ("S3CRET", "p%40", "p@:%/w", "4nn")


def _assert_no_secret(text: str, where: object) -> None:
    found = [trace for trace in _TRACES if trace in text]
    assert not found, (where, found, text[:2000])


def _assert_no_secret_below(root: Path) -> None:
    for file in root.rglob("*"):
        if file.is_file():
            _assert_no_secret(file.read_bytes().decode("utf-8", errors="replace"), file)


def _command_lines() -> list[str]:
    """The command lines of the processes that this one has started, and of theirs."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and f"\nPPid:\t{os.getpid()}\n" in (entry / "status").read_text():
                found.append((entry / "cmdline").read_bytes().decode("utf-8", errors="replace"))
    return found


def test_a_password_is_used_and_appears_nowhere(
    server: MlflowServer, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import jepa_lab.composition.work as work_module

    seen: list[str] = []
    real = work_module.final_evaluation

    def look(*given: object, **named: object) -> object:
        seen.extend(_command_lines())
        return real(*given, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(work_module, "final_evaluation", look)
    monkeypatch.setattr(sys, "argv", ["jepa-lab", "run", "tiny.yaml", f"tracking.uri=http://4nn:{_SECRET}@host"])
    uri = proxy.uri.replace("://", f"://4nn:{_SECRET}@")
    text = f'{{name: mlflow, uri: "{uri}", experiment: faults, flush_seconds: 0.1}}'
    file = write_tiny(tmp_path)
    file.write_text(file.read_text().replace("tracking: none", f"tracking: {text}"))
    proxy.plan(FAULTS["error 500"], "runs/get")  # so that an error is told, too
    outputs = [_invoke("check", file), _invoke("run", file, "--runs", tmp_path / "runs")]
    assert [output.exit_code for output in outputs] == [0, 0], outputs[1].output
    folder = RunFolder.open(next((tmp_path / "runs").iterdir()))
    assert wait_until(lambda: mirror_state(folder).complete)
    outputs += [_invoke("sync", folder.path), _invoke("run", "--resume", folder.path, f"tracking.uri={uri}")]
    for output in outputs:
        _assert_no_secret(output.output, "output")
    assert any("jepa_lab.tracking.mirror" in line for line in seen)
    for line in seen:
        _assert_no_secret(line, "command line")
    _assert_no_secret_below(folder.path)
    _assert_record_is_complete_once(server, folder)
    _assert_no_secret_below(server.root)
    assert "jepa-lab" in json.loads(folder.environment.read_text())["command"]


def _run_process(*arguments: str | Path) -> subprocess.Popen[str]:
    """`jepa-lab run` as a process of its own."""
    command = [sys.executable, "-m", "jepa_lab", "run", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def _tracking(proxy: FaultProxy) -> str:
    return f"tracking={{name: mlflow, uri: '{proxy.uri}', experiment: faults, flush_seconds: 0.1}}"


def _status(server: MlflowServer, folder: RunFolder) -> str | None:
    found = server.sql(
        "SELECT r.status FROM runs r JOIN tags t USING (run_uuid) WHERE t.key = 'jepa_lab.run_uid' AND t.value = ?",
        folder.read_description().run_uid,
    )
    return str(found[0][0]) if found else None


@pytest.mark.slow
def test_a_killed_run_is_killed_in_mlflow_then_running_again_and_finished_at_the_end(
    server: MlflowServer, proxy: FaultProxy, tmp_path: Path
) -> None:
    settings = ("training.epochs=200", "probe.every_epochs=100", "training.checkpoint_every_steps=50")
    run = _run_process(write_tiny(tmp_path), *settings, _tracking(proxy), "--runs", tmp_path / "runs")
    assert wait_until(lambda: any((tmp_path / "runs").glob("*/checkpoints/step-*")))
    folder = RunFolder.open(next((tmp_path / "runs").iterdir()))
    assert wait_until(folder.mirror.exists)
    run.kill()
    run.communicate()
    assert folder.read_result() is None
    assert wait_until(lambda: _status(server, folder) == "KILLED")
    again = _run_process("--resume", folder.path)
    assert wait_until(lambda: _status(server, folder) == "RUNNING")
    output, _ = again.communicate(timeout=300)
    assert again.returncode == 0, output
    assert wait_until(lambda: mirror_state(folder).complete)
    _assert_record_is_complete_once(server, folder)


@pytest.mark.slow
def test_a_server_that_is_killed_and_started_again_during_a_run_gets_everything(
    server: MlflowServer, proxy: FaultProxy, tmp_path: Path
) -> None:
    settings = ("training.epochs=400", "probe.every_epochs=200", "training.checkpoint_every_steps=50")
    run = _run_process(write_tiny(tmp_path), *settings, _tracking(proxy), "--runs", tmp_path / "runs")
    assert wait_until(lambda: len(proxy.logged) > 100)
    server.kill()
    folder = RunFolder.open(next((tmp_path / "runs").iterdir()))
    rows = len(read_metrics(folder.metrics))
    assert wait_until(lambda: len(read_metrics(folder.metrics)) > rows)  # the run goes on
    server.start()
    output, _ = run.communicate(timeout=300)
    assert run.returncode == 0, output
    assert wait_until(lambda: mirror_state(folder).complete)
    _assert_record_is_complete_once(server, folder)


@pytest.mark.slow
def test_a_history_of_more_than_25000_steps_is_completed_without_being_read(
    server: MlflowServer, proxy: FaultProxy, folder: RunFolder
) -> None:
    """25,000 is the page size of MLflow's metric histories."""
    with MetricsWriter(folder.metrics, None) as writer:
        for step in range(26_000):
            writer.append(step, 0, {"train/loss": 1 / (step + 1)})
    Mirror(folder).push(ended=False)
    folder.mirror.unlink()  # the worst case: the mirror knows nothing any more
    with MetricsWriter(folder.metrics, None) as writer:
        for step in range(26_000, 26_500):
            writer.append(step, 0, {"train/loss": 1 / (step + 1)})
    _finish(folder, 26_499)
    before = len(proxy.requests)
    assert sync(folder.path).complete
    asked = [path for _, path in proxy.requests[before:]]
    assert len(asked) < 50
    assert not [path for path in asked if "history" in path]
    _assert_record_is_complete_once(server, folder)
    assert max(Counter(proxy.logged).values()) == 1


@pytest.mark.slow
def test_a_mirror_whose_server_never_answers_ends_after_the_grace_period(proxy: FaultProxy, folder: RunFolder) -> None:
    proxy.plan(Fault(silent=True), times=float("inf"))
    command = [sys.executable, "-m", "jepa_lab.tracking.mirror", str(folder.path), "--grace", "2"]
    environment = {**os.environ, "MLFLOW_HTTP_REQUEST_TIMEOUT": "1"}
    mirror = subprocess.Popen([*command, "--parent", str(os.getpid())], stdin=subprocess.PIPE, env=environment)
    assert wait_until(lambda: len(proxy.requests) > 1)
    assert mirror.poll() is None
    mirror.communicate()  # closes its standard input, as a run does at its end
    assert mirror.returncode == 1
    with FileLock(folder.mirror_lock, "the record") as lock:
        assert lock.try_acquire()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_while_the_tracker_is_waited_for_ends_the_wait_and_not_the_result(
    server: MlflowServer, proxy: FaultProxy, tmp_path: Path, number: signal.Signals
) -> None:
    proxy.plan(Fault(silent=True), times=float("inf"))
    run = _run_process(write_tiny(tmp_path), _tracking(proxy), "--runs", tmp_path / "runs")
    assert run.stdout is not None
    assert any("Ctrl-C ends only the wait" in line for line in run.stdout)
    run.send_signal(number)
    output, _ = run.communicate(timeout=20)  # less than the 30 s for which it would wait
    assert run.returncode == 0, output
    folder = RunFolder.open(next((tmp_path / "runs").iterdir()))
    assert f"jepa-lab sync {folder.path}" in output
    result = folder.read_result()
    assert result is not None
    assert result["status"] == "FINISHED"
    proxy.mend()
    assert wait_until(lambda: mirror_state(folder).complete)
    _assert_record_is_complete_once(server, folder)
