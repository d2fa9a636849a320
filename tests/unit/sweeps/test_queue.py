"""The queue of trials with an executor that does what the test says: nothing is lost, nothing is counted twice."""

from __future__ import annotations

import signal
from collections import deque
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest
from optuna.trial import TrialState

from jepa_lab.config.loading import LoadedPipeline, config_digest, dump_pipeline
from jepa_lab.errors import ConfigError, RunStopped, StorageUnavailable
from jepa_lab.interruption import StopRequested, StopSignals
from jepa_lab.registry import ComponentParams
from jepa_lab.resume import find_runs, run_stem
from jepa_lab.sweeps import queue
from jepa_lab.sweeps.executors.base import Executor, Surroundings
from jepa_lab.sweeps.folder import SweepFolder
from jepa_lab.sweeps.ledger import Trial
from jepa_lab.sweeps.progress import PlainDisplay, SweepDisplay, SweepState
from jepa_lab.sweeps.queue import TrialQueue
from jepa_lab.sweeps.resources import Needs, Resources
from jepa_lab.sweeps.study import PlannedTrial, TableStudy, open_storage
from jepa_lab.sweeps.tasks import Outcome, Reply, Task
from jepa_lab.sweeps.watch import ONLINE_PROBE
from jepa_lab.tracking.locks import FileLock
from jepa_lab.tracking.metrics import MetricsWriter
from jepa_lab.tracking.run_folder import RunFolder
from tests.integration.pipelines import load_tiny

ONLINE = {1: 0.25, 2: 0.5}
"""Online probe by epoch, of every run that finishes."""


class ScriptedExecutor(Executor):
    """Ends its tasks as scripted, trial by trial; a trial without a script finishes with its number as value."""

    def __init__(self, folder: SweepFolder, script: dict[int, list[Outcome]], slots: int = 2) -> None:
        super().__init__(ComponentParams(), Surroundings(folder, folder.path, Needs(Resources(), on_gpu=False)))
        self.script, self.slots = script, slots
        self.started: list[int] = []
        self.ready: deque[tuple[Task, Outcome]] = deque()
        self.slots_given: dict[int, int] = {}
        self.most_at_once = 0

    @staticmethod
    def planned_slots(params: ComponentParams, needs: Needs) -> int:
        return 2

    @staticmethod
    def shares_gpus(params: ComponentParams, needs: Needs) -> bool:
        return False

    @classmethod
    def check_machine(cls, params: ComponentParams, needs: Needs) -> None:
        """Anything may be meant."""

    def capacity(self) -> int:
        return self.slots

    def adopt(self, task: Task) -> bool:
        return False

    def place(self, number: int) -> str:
        return f"slot {[task.number for task, _ in self.ready].index(number)}"

    def submit(self, task: Task) -> None:
        self.slots_given[task.number] = self.slots
        self.started.append(task.number)
        outcomes = self.script.get(task.number, [])
        outcome: Outcome = outcomes.pop(0) if outcomes else "finished"
        self.ready.append((task, outcome))
        self.most_at_once = max(self.most_at_once, len(self.ready))

    def poll(self, seconds: float) -> list[Reply]:
        if not self.ready:
            return []
        task, outcome = self.ready.popleft()
        if outcome == "finished":
            finish(task.runs, task.config, float(task.number))
        return [Reply(task.number, outcome, "" if outcome == "finished" else f"scripted: {outcome}")]

    def give_more_memory(self, number: int) -> str | None:
        if self.slots < self.slots_given[number]:
            return ""
        if self.slots == 1:
            return None
        self.slots -= 1
        return "continuing with one slot fewer"

    def cancel(self, numbers: Collection[int]) -> None:
        assert set(numbers) == {task.number for task, _ in self.ready}
        self.ready = deque((task, "interrupted") for task, _ in self.ready)

    def close(self) -> None:
        """Nothing to end."""


def finish(runs: Path, config: Path, value: float) -> None:
    """A run folder as a finished run leaves it, as far as the queue looks."""
    from jepa_lab.config.loading import load_pipeline

    pipeline = load_pipeline(config).pipeline
    run = RunFolder.create(runs, pipeline.name, config_digest(pipeline), pipeline.seed, dump_pipeline(pipeline))
    with MetricsWriter(run.metrics, None) as writer:
        for epoch, probe in ONLINE.items():
            writer.append(epoch, float(epoch), {ONLINE_PROBE: probe})
    run.write_result("FINISHED", {"probe/validation_accuracy": value}, 1)


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    return SweepFolder.open_or_create(tmp_path / "sweeps", "s", "a: 1\n", {"name": "s"})


@pytest.fixture
def study(folder: SweepFolder) -> TableStudy:
    study = TableStudy(open_storage(folder.journal, None), "s", "maximize", ["a"], range(4))
    study.enqueue(PlannedTrial("a", seed) for seed in range(4))
    return study


def perform(
    tmp_path: Path,
    folder: SweepFolder,
    study: TableStudy,
    executor: ScriptedExecutor,
    retries: int = 1,
    stop: StopSignals | None = None,
    seed: int | None = None,
    display: SweepDisplay | None = None,
    is_search: bool = False,
) -> bool:
    """Perform the trials of the study; with `seed` all of them are the same run."""

    def trials() -> Iterator[Trial]:
        for number, planned in study.to_run():
            study.begin(number)
            loaded: LoadedPipeline = load_tiny(tmp_path, f"seed={planned.seed if seed is None else seed}")
            yield Trial(number, planned, loaded, {}, {})

    trial_queue = TrialQueue(
        folder, study, executor, "probe/validation_accuracy", retries, stop or StopSignals(), display or PlainDisplay()
    )
    return trial_queue.perform(trials(), 0, 4, is_search)


def states(study: TableStudy) -> list[TrialState]:
    return [trial.state for trial in study.trials()]


def test_every_trial_is_started_once_and_its_value_told(tmp_path: Path, folder: SweepFolder, study: TableStudy) -> None:
    executor = ScriptedExecutor(folder, {})
    assert perform(tmp_path, folder, study, executor)
    assert executor.started == [0, 1, 2, 3]
    assert executor.most_at_once == 2
    assert [trial.value for trial in study.trials()] == [0.0, 1.0, 2.0, 3.0]
    assert all((folder.path / trial.user_attrs["run_folder"]).is_dir() for trial in study.trials())
    assert [trial.intermediate_values for trial in study.trials()] == [ONLINE] * 4


@pytest.mark.parametrize(("failures", "state"), [(2, TrialState.COMPLETE), (3, TrialState.FAIL)])
def test_a_failed_trial_is_tried_again_as_often_as_asked_then_counted(
    tmp_path: Path, folder: SweepFolder, study: TableStudy, failures: int, state: TrialState
) -> None:
    executor = ScriptedExecutor(folder, {1: ["failed"] * failures})
    perform(tmp_path, folder, study, executor, retries=2)
    assert executor.started.count(1) == 3
    assert states(study) == [TrialState.COMPLETE, state, TrialState.COMPLETE, TrialState.COMPLETE]
    if state == TrialState.FAIL:
        assert study.trials()[1].user_attrs["error"] == "scripted: failed"


def test_a_trial_whose_worker_died_goes_on_without_counting_as_failed(
    tmp_path: Path, folder: SweepFolder, study: TableStudy
) -> None:
    executor = ScriptedExecutor(folder, {2: ["died"] * 4})
    perform(tmp_path, folder, study, executor, retries=0)
    assert executor.started.count(2) == 5
    assert states(study) == [TrialState.COMPLETE] * 4


def test_a_trial_that_kills_every_worker_is_given_up(tmp_path: Path, folder: SweepFolder, study: TableStudy) -> None:
    executor = ScriptedExecutor(folder, {2: ["died"] * 100})
    perform(tmp_path, folder, study, executor)
    assert executor.started.count(2) == 5
    assert study.trials()[2].state == TrialState.FAIL
    assert "has lost 5 workers" in study.trials()[2].user_attrs["error"]


def test_out_of_memory_takes_a_slot_away_and_fails_only_the_last_one(
    tmp_path: Path, folder: SweepFolder, study: TableStudy
) -> None:
    executor = ScriptedExecutor(folder, {0: ["out_of_memory", "finished"]}, slots=3)
    perform(tmp_path, folder, study, executor, retries=0)
    assert executor.slots == 2
    assert states(study) == [TrialState.COMPLETE] * 4


def test_trials_that_ran_out_of_memory_together_take_one_slot_away(
    tmp_path: Path, folder: SweepFolder, study: TableStudy
) -> None:
    executor = ScriptedExecutor(folder, {number: ["out_of_memory"] for number in range(3)}, slots=3)
    perform(tmp_path, folder, study, executor, retries=0)
    assert executor.slots == 2
    assert states(study) == [TrialState.COMPLETE] * 4


def test_out_of_memory_on_the_only_slot_is_a_failure(tmp_path: Path, folder: SweepFolder, study: TableStudy) -> None:
    perform(tmp_path, folder, study, ScriptedExecutor(folder, {0: ["out_of_memory"]}, slots=1), retries=0)
    assert states(study)[0] == TrialState.FAIL


@pytest.mark.parametrize(("outcome", "state"), [("failed", TrialState.FAIL), ("pruned", TrialState.PRUNED)])
def test_a_trial_without_a_value_names_its_newest_run_folder(
    tmp_path: Path, folder: SweepFolder, study: TableStudy, outcome: Outcome, state: TrialState
) -> None:
    pipeline = load_tiny(tmp_path, "seed=0").pipeline
    given = (folder.trials, pipeline.name, config_digest(pipeline), 0, dump_pipeline(pipeline))
    _, newest = (RunFolder.create(*given) for _ in range(2))
    perform(tmp_path, folder, study, ScriptedExecutor(folder, {0: [outcome]}), retries=0)
    trial = study.trials()[0]
    assert trial.state == state
    assert folder.path / trial.user_attrs["run_folder"] == newest.path


def test_a_trial_that_ends_with_its_collapse_is_not_retried_and_told_as_pruned(
    tmp_path: Path, folder: SweepFolder, study: TableStudy
) -> None:
    executor = ScriptedExecutor(folder, {1: ["collapsed"]})
    assert perform(tmp_path, folder, study, executor, retries=3)
    assert executor.started == [0, 1, 2, 3]
    trial = study.trials()[1]
    assert trial.state == TrialState.PRUNED
    assert trial.user_attrs["collapsed"] is True
    assert trial.user_attrs["error"] == "scripted: collapsed"


def test_a_run_that_finished_before_the_parent_died_is_told_and_not_run_again(
    tmp_path: Path, folder: SweepFolder, study: TableStudy
) -> None:
    config = tmp_path / "done.yaml"
    config.write_text(dump_pipeline(load_tiny(tmp_path, "seed=1").pipeline))
    finish(folder.trials, config, 0.75)
    executor = ScriptedExecutor(folder, {})
    perform(tmp_path, folder, study, executor)
    assert executor.started == [0, 2, 3]
    assert study.trials()[1].value == 0.75
    assert study.trials()[1].intermediate_values == ONLINE


def test_a_signal_leaves_what_ran_resumable_with_its_number(
    tmp_path: Path, folder: SweepFolder, study: TableStudy
) -> None:
    stop = StopSignals()
    stop.received = signal.SIGINT
    executor = ScriptedExecutor(folder, {})
    assert not perform(tmp_path, folder, study, executor, stop=stop)
    assert executor.started == [0, 1]
    running = [trial.number for trial in study.trials() if trial.state == TrialState.RUNNING]
    assert running == [1]  # 0 had finished when the signal was seen
    again = ScriptedExecutor(folder, {})
    assert perform(tmp_path, folder, study, again)
    assert again.started == [1, 2, 3]
    assert states(study) == [TrialState.COMPLETE] * 4


def test_trials_of_the_same_pipeline_are_one_run_and_never_run_at_once(
    tmp_path: Path, folder: SweepFolder, study: TableStudy
) -> None:
    executor = ScriptedExecutor(folder, {0: ["died"]})
    assert perform(tmp_path, folder, study, executor, seed=7)
    assert executor.started == [0, 0]
    assert executor.most_at_once == 1
    assert [trial.value for trial in study.trials()] == [0.0] * 4
    assert len(list(folder.trials.iterdir())) == 1


def test_attempts_are_counted_over_all_commands(tmp_path: Path, folder: SweepFolder, study: TableStudy) -> None:
    study.begin(0)
    study.note(0, "failures", 1)
    perform(tmp_path, folder, study, ScriptedExecutor(folder, {0: ["failed"]}), retries=1)
    assert states(study)[0] == TrialState.FAIL


def test_a_trial_that_fails_while_the_sweep_stops_keeps_its_attempts(
    tmp_path: Path, folder: SweepFolder, study: TableStudy
) -> None:
    stop = StopSignals()
    stop.received = signal.SIGINT
    executor = ScriptedExecutor(folder, {0: ["finished"], 1: ["failed"]})
    executor.stop = lambda: None  # type: ignore[method-assign]  # the failure comes before the worker is asked
    assert not perform(tmp_path, folder, study, executor, retries=1, stop=stop)
    assert states(study)[:2] == [TrialState.COMPLETE, TrialState.RUNNING]
    assert perform(tmp_path, folder, study, ScriptedExecutor(folder, {}), retries=1)
    assert states(study) == [TrialState.COMPLETE] * 4


def test_a_result_without_the_metric_is_a_failure_that_says_so(
    tmp_path: Path, folder: SweepFolder, study: TableStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = RunFolder.write_result
    monkeypatch.setattr(RunFolder, "write_result", lambda self, status, metrics, step: write(self, status, {}, step))
    perform(tmp_path, folder, study, ScriptedExecutor(folder, {}))
    assert "has no probe/validation_accuracy" in study.trials()[0].user_attrs["error"]


class SlowStart(ScriptedExecutor):
    """One worker, whose start takes 34 seconds by its clock; then each trial takes 6."""

    keeps_workers = True

    def __init__(self, folder: SweepFolder, clock: list[float]) -> None:
        super().__init__(folder, {}, slots=1)
        self.clock = clock
        self.is_ready = False

    def poll(self, seconds: float) -> list[Reply]:
        task, outcome = self.ready[0]
        if not self.is_ready:
            self.clock[0] += 34.0
            self.is_ready = True
            run_of(task).metrics.write_text(FIRST_ROW)
            return []
        self.ready.popleft()
        self.clock[0] += 6.0
        run_of(task).write_result("FINISHED", {"probe/validation_accuracy": 0.5}, 1)
        return [Reply(task.number, outcome, "")]


FIRST_ROW = '{"format_version": 1, "step": 0, "epoch": 0.0, "time": 1.0, "metrics": {"validation/loss": 0.5}}\n'


def run_of(task: Task) -> RunFolder:
    """The run folder of a task, made where it is missing."""
    from jepa_lab.config.loading import load_pipeline

    pipeline = load_pipeline(task.config).pipeline
    found = find_runs(task.runs, pipeline)
    given = (task.runs, pipeline.name, config_digest(pipeline), pipeline.seed, dump_pipeline(pipeline))
    return found[-1] if found else RunFolder.create(*given)


class Recorder(PlainDisplay):
    """Keeps what it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.left: list[float | None] = []

    def update(self, state: SweepState) -> None:
        self.left.append(state.seconds_left)


def test_the_start_of_a_worker_does_not_enter_the_time_that_is_left(
    tmp_path: Path, folder: SweepFolder, study: TableStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr("jepa_lab.sweeps.queue.time.monotonic", lambda: clock[0])
    display = Recorder()
    perform(tmp_path, folder, study, SlowStart(folder, clock), display=display)
    # Four trials on one slot: the start of the worker, then 6 seconds each.
    assert display.left == [None, 18.0, 12.0, 6.0, 0.0]


def test_trials_that_an_earlier_command_began_say_nothing_about_the_time_of_a_trial(
    tmp_path: Path, folder: SweepFolder, study: TableStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [1000.0]
    monkeypatch.setattr("jepa_lab.sweeps.queue.time.monotonic", lambda: clock[0])
    pipeline = load_tiny(tmp_path, "seed=0").pipeline
    RunFolder.create(folder.trials, pipeline.name, config_digest(pipeline), 0, dump_pipeline(pipeline))
    display = Recorder()
    perform(tmp_path, folder, study, SlowStart(folder, clock), display=display)
    assert display.left == [None, None, 12.0, 6.0, 0.0]


def test_a_trial_that_another_process_works_on_is_waited_for_without_counting(
    tmp_path: Path, folder: SweepFolder, study: TableStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "_BUSY_SECONDS", 0.0)
    executor = ScriptedExecutor(folder, {1: ["busy"] * 7})
    assert perform(tmp_path, folder, study, executor, retries=0)
    assert executor.started.count(1) == 8
    assert states(study) == [TrialState.COMPLETE] * 4
    assert "failures" not in study.trials()[1].user_attrs


def test_a_trial_that_another_process_finished_meanwhile_is_not_started_again(
    tmp_path: Path, folder: SweepFolder, study: TableStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queue, "_BUSY_SECONDS", 0.0)
    executor = ScriptedExecutor(folder, {1: ["busy"]}, slots=1)
    answer = executor.poll

    def poll(seconds: float) -> list[Reply]:
        task, outcome = executor.ready[0]
        if outcome == "busy":
            finish(task.runs, task.config, 7.0)
        return answer(seconds)

    monkeypatch.setattr(executor, "poll", poll)
    assert perform(tmp_path, folder, study, executor)
    assert executor.started == [0, 1, 2, 3]
    assert study.trials()[1].value == 7.0


@pytest.mark.parametrize(
    ("outcomes", "kind", "message"),
    [
        (["refused"], ConfigError, "a worker cannot take part in this sweep: scripted: refused"),
        (["interrupted"] * 3, RunStopped, "a seed 0 was interrupted 3 times in a row"),
    ],
)
def test_what_must_be_put_right_first_ends_the_sweep_when_the_other_trials_have_saved_and_fails_none(
    tmp_path: Path,
    folder: SweepFolder,
    study: TableStudy,
    outcomes: list[Outcome],
    kind: type[Exception],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    executor = ScriptedExecutor(folder, {0: outcomes, 1: ["interrupted"] * 2}, slots=2)
    cancelled: list[int] = []
    cancel = executor.cancel
    executor.cancel = lambda numbers: (cancelled.extend(numbers), cancel(numbers))[1]  # type: ignore[method-assign]
    with pytest.raises(kind, match=message):
        perform(tmp_path, folder, study, executor)
    assert cancelled == [1]
    assert not executor.ready
    assert "running trials save their state" in capsys.readouterr().out
    assert TrialState.FAIL not in states(study)


def test_tasks_name_absolute_paths_and_the_folder_that_others_are_seen_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = SweepFolder.open_or_create(Path("sweeps"), "s", "a: 1\n", {"name": "s"})
    study = TableStudy(open_storage(folder.journal, None), "s", "maximize", ["a"], range(4))
    study.enqueue([PlannedTrial("a", 0)])
    executor, tasks = ScriptedExecutor(folder, {}), list[Task]()
    submit = executor.submit
    monkeypatch.setattr(executor, "submit", lambda task: (tasks.append(task), submit(task)))
    perform(tmp_path, folder, study, executor)
    (task,) = tasks
    assert (task.config.is_absolute(), task.runs.is_absolute(), task.folder) == (True, True, tmp_path)
    assert task.name == "arm-0000"
    assert Task.from_json(task.to_json()) == task


@pytest.mark.parametrize(("is_search", "started"), [(True, [0, 1, 1, 2, 3]), (False, [0, 1, 2, 3, 1])])
def test_a_trial_that_another_process_holds_is_not_submitted_until_it_is_free_and_keeps_its_slot_in_a_search_alone(
    tmp_path: Path,
    folder: SweepFolder,
    study: TableStudy,
    monkeypatch: pytest.MonkeyPatch,
    is_search: bool,
    started: list[int],
) -> None:
    monkeypatch.setattr(queue, "_BUSY_SECONDS", 0.0)
    claim = FileLock(folder.claim(run_stem(load_tiny(tmp_path, "seed=1").pipeline)), "the trial")
    assert claim.try_acquire()
    executor = ScriptedExecutor(folder, {1: ["busy"]}, slots=1)
    executor.look_seconds = 0.0
    looks = 0
    is_claimed = TrialQueue._is_claimed

    def look(each: TrialQueue, trial: Trial) -> bool:
        nonlocal looks
        looks += 1
        if looks == 20:
            claim.release()
        return is_claimed(each, trial)

    monkeypatch.setattr(TrialQueue, "_is_claimed", look)
    assert perform(tmp_path, folder, study, executor, is_search=is_search)
    assert looks == 20
    assert executor.started == started


def test_a_trial_that_is_interrupted_before_it_saves_anything_new_ends_the_sweep_with_a_sentence(
    tmp_path: Path, folder: SweepFolder, study: TableStudy
) -> None:
    executor = ScriptedExecutor(folder, {1: ["interrupted"] * 9}, slots=1)
    with pytest.raises(
        RunStopped, match=r"^a seed 1 was interrupted 3 times in a row .* \(step 0 is its last\): scripted.* --time"
    ):
        perform(tmp_path, folder, study, executor)
    assert executor.started == [0, 1, 1, 1]
    assert TrialState.FAIL not in states(study)


@pytest.mark.parametrize("outcome", ["interrupted", "died"])
def test_a_trial_that_gets_further_each_time_may_be_ended_as_often_as_it_takes(
    outcome: Outcome, tmp_path: Path, folder: SweepFolder, study: TableStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = ScriptedExecutor(folder, {1: [outcome] * 9}, slots=1)
    pipeline = load_tiny(tmp_path, "seed=1").pipeline
    run = RunFolder.create(
        folder.trials, pipeline.name, config_digest(pipeline), pipeline.seed, dump_pipeline(pipeline)
    )
    answer = executor.poll

    def poll(seconds: float) -> list[Reply]:
        (run.checkpoints / f"step-{len(executor.started):08d}").mkdir(parents=True)
        return answer(seconds)

    monkeypatch.setattr(executor, "poll", poll)
    assert perform(tmp_path, folder, study, executor)
    assert executor.started.count(1) == 10


class RepliesAtOnce(ScriptedExecutor):
    """All of its tasks reply at the same moment; of those that are told to stop nobody hears."""

    def poll(self, seconds: float) -> list[Reply]:
        return [reply for _ in range(len(self.ready)) for reply in super(RepliesAtOnce, self).poll(seconds)]

    def cancel(self, numbers: Collection[int]) -> None:
        super().cancel(numbers)
        self.ready.clear()


def lost(*given: object) -> None:
    raise StorageUnavailable("the storage is unreachable")


def test_a_lost_database_ends_the_sweep_also_where_several_trials_replied_at_once(
    tmp_path: Path, folder: SweepFolder, study: TableStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "finish", lost)
    with pytest.raises(StorageUnavailable):  # nobody waits for the second one's reply, which has come
        perform(tmp_path, folder, study, RepliesAtOnce(folder, {}))


def test_the_first_ctrl_c_ends_the_waiting_for_trials_that_save_their_state_after_a_lost_database(
    tmp_path: Path, folder: SweepFolder, study: TableStudy, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor, stop = RepliesAtOnce(folder, {}), StopSignals()
    polls: list[float] = []

    def poll(seconds: float) -> list[Reply]:
        polls.append(seconds)
        assert len(polls) < 5
        stop.received = signal.SIGINT if len(polls) == 3 else None
        return []

    monkeypatch.setattr(executor, "poll", poll)
    monkeypatch.setattr(TrialQueue, "_look", lost)
    with pytest.raises(StopRequested):
        perform(tmp_path, folder, study, executor, stop=stop)
