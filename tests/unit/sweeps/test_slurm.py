"""The Slurm executor on commands that answer what the test says: nothing is submitted twice or waited for for ever."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jepa_lab.errors import ConfigError, RunStopped
from jepa_lab.sweeps.attempts import Attempt, Attempts
from jepa_lab.sweeps.engine import NO_ENGINE_SETTINGS, Engine, EngineChoice, choose_engine
from jepa_lab.sweeps.executors.slurm import SlurmExecutor
from jepa_lab.sweeps.folder import SweepFolder
from jepa_lab.sweeps.tasks import Outcome, Reply, Task
from jepa_lab.tracking.locks import FileLock
from tests.unit.sweeps.fake_slurm import FakeSlurm

QUICK = ("poll_seconds=0.001", "grace_seconds=0")


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSlurm:
    return FakeSlurm(tmp_path, monkeypatch)


@pytest.fixture
def folder(tmp_path: Path) -> SweepFolder:
    return SweepFolder.open_or_create(tmp_path / "sweeps", "s", "a: 1\n", {"name": "s"})


def engine(*options: str, on_gpu: bool = False, **resources: Any) -> Engine:
    choice = EngineChoice("slurm", [*QUICK, *options], **resources)
    return choose_engine(NO_ENGINE_SETTINGS, choice, on_gpu)


def build(folder: SweepFolder, *options: str, on_gpu: bool = False, **resources: Any) -> SlurmExecutor:
    executor = engine(*options, on_gpu=on_gpu, **resources).build(folder)
    assert isinstance(executor, SlurmExecutor)
    return executor


def task(number: int = 0) -> Task:
    return Task(number, f"arm-{number:04d}", Path("/a.yaml"), Path("/trials"), Path("/claim"), {}, {})


def attempt_of(folder: SweepFolder, number: int = 0) -> Attempt:
    attempt = Attempts(folder.path.resolve() / "tasks").last(task(number).name)
    assert attempt is not None
    return attempt


def name_of(slurm: FakeSlurm, number: int = -1) -> str:
    """The name of a job that was submitted."""
    return next(word for word in slurm.submitted()[number].split() if word.startswith("--job-name="))[11:]


def reply(folder: SweepFolder, outcome: Outcome, number: int = 0) -> None:
    attempt_of(folder, number).reply.write_text(Reply(number, outcome, "").to_json())


def submitted(executor: SlurmExecutor, slurm: FakeSlurm, *numbers: int) -> None:
    """These tasks run."""
    jobs = []
    for number in numbers:
        executor.submit(task(number))
        attempt = attempt_of(executor.around.folder, number)
        jobs.append((str(attempt.read_job()), "RUNNING", "node1", "None", name_of(slurm)))
    slurm.lists(*jobs)


def test_a_job_asks_for_what_a_trial_gets_and_becomes_its_worker(folder: SweepFolder, slurm: FakeSlurm) -> None:
    options = ("partition=gpu", "account=1234", "qos=low", "constraint=ib", "exclude=node[7-9]", "gpu_type=a100")
    executor = build(
        folder, *options, "options=['--reservation=x']", on_gpu=True, cpus=4, gpus=1, memory="16G", time="1d"
    )
    executor.submit(task())
    (asked,) = slurm.submitted()
    for option in (
        *(
            "--cpus-per-task=4",
            "--gres=gpu:a100:1",
            "--mem=16384M",
            "--time=1-00:00:00",
            "--partition=gpu",
            "--qos=low",
        ),
        *("--account=1234", "--constraint=ib", "--exclude=node[7-9]", "--reservation=x", "--requeue", "--parsable"),
        *("--signal=B:TERM@120", "--open-mode=append", f"--output={attempt_of(folder).log}"),
    ):
        assert option in asked.split()
    assert "export OMP_NUM_THREADS=4\n" in slurm.script()
    assert slurm.script().splitlines()[-1].startswith("exec ")
    assert f"--task {attempt_of(folder).task}" in slurm.script()


def test_what_is_not_asked_for_is_left_to_slurm(folder: SweepFolder, slurm: FakeSlurm) -> None:
    build(folder).submit(task())
    (asked,) = slurm.submitted()
    for option in ("--cpus", "--gres", "--mem", "--time", "--partition"):
        assert option not in asked
    assert "export OMP_NUM_THREADS=${SLURM_CPUS_ON_NODE:-1}\n" in slurm.script()


def test_lines_of_setup_run_first_in_a_login_shell(folder: SweepFolder, slurm: FakeSlurm) -> None:
    build(folder, "setup=['module load cuda/12']").submit(task())
    assert slurm.script().startswith("#!/bin/bash -l\nmodule load cuda/12\n")


@pytest.mark.parametrize(
    ("options", "resources", "on_gpu", "message"),
    [
        ((), {"gpus": 0.5}, True, r"^--gpus 0\.5: Slurm gives whole GPUs"),
        ((), {"gpus": 1}, False, r"^--gpus 1 needs a GPU, and training\.device=cpu uses none"),
        (("gpu_type=a100",), {}, True, r"gpu_type=a100 needs --gpus 1"),
        ((), {"time": "2m"}, False, r"^--time 2m leaves no time to train: a job is told to stop 120 s before"),
        (("options=['--array=0-3']",), {}, False, r"--array is jepa-lab's own to set"),
        (("options=['-Jmine']",), {}, False, r"is jepa-lab's own to set"),
        (("options=['reservation=x']",), {}, False, r"each is an option of sbatch, such as --reservation=course"),
        (("partitoin=x",), {}, False, r"did you mean 'partition'"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    options: tuple[str, ...], resources: dict[str, Any], on_gpu: bool, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        engine(*options, on_gpu=on_gpu, **resources)


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (
            "sbatch: error: Batch job submission failed: Invalid partition name specified",
            "--executor-option partition=p",
        ),
        ("allocation failure: Invalid feature specification", "--executor-option constraint=c"),
        ("sbatch: error: Invalid account or account/partition combination specified", "--executor-option partition=p"),
        ("sbatch: unrecognized option '--foo=foo'", "--executor-option options='[--foo=foo]'"),
        ("sbatch: error: Requested time limit is invalid (missing or exceeds some limit)", "--time 2h"),
        ("allocation failure: Requested node configuration is not available", "--gpus 1 --memory 4G"),
        ("sbatch: error: Memory specification can not be satisfied", "--memory 4G"),
    ],
)
def test_a_refusal_has_slurms_words_and_the_option_that_asked(
    folder: SweepFolder, slurm: FakeSlurm, words: str, named: str
) -> None:
    slurm.fails("sbatch", words)
    options = ("partition=p", "constraint=c", "options=['--foo=foo']")
    executor = build(folder, *options, on_gpu=True, gpus=1, memory="4G", time="2h")
    with pytest.raises(ConfigError) as refused:
        executor.submit(task())
    assert words.split(": ", 2)[-1].rpartition("error: ")[2] in str(refused.value)
    assert named in str(refused.value)


def test_slurm_is_asked_before_anything_is_written(slurm: FakeSlurm) -> None:
    slurm.fails("test", "sbatch: error: Batch job submission failed: Invalid partition name specified")
    with pytest.raises(ConfigError, match="Invalid partition name specified; this comes from --executor-option part"):
        engine("partition=p").check_machine()
    slurm.fails("test", "allocation failure: Requested node configuration is not available")
    engine("partition=p").check_machine()  # so it says, too, where nodes are down for an hour
    assert slurm.submitted() == []


def test_a_machine_without_slurm_is_refused_with_a_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ConfigError, match=r"^--executor slurm: there is no sbatch on this machine; run the command on"):
        engine().check_machine()


def test_an_unreachable_slurm_refuses_nothing_before_the_start(slurm: FakeSlurm) -> None:
    slurm.fails("test")
    engine().check_machine()


def test_a_squeue_that_fails_counts_all_jobs_as_alive(folder: SweepFolder, slurm: FakeSlurm) -> None:
    executor = build(folder)
    submitted(executor, slurm, 0, 1)
    assert executor.poll(0.0) == []
    slurm.fails("squeue")
    for _ in range(3):
        assert executor.poll(0.01) == []
    reply(folder, "finished", 1)
    assert [each.number for each in executor.poll(0.0)] == [1], "replies are seen without it"


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("squeue", r"Unable to contact"),
        ("sbatch", r"Batch job submission failed: Protocol authentication error"),  # while squeue answers
    ],
)
def test_a_slurm_that_does_not_answer_for_long_stops_the_sweep_and_leaves_its_jobs(
    folder: SweepFolder, slurm: FakeSlurm, command: str, words: str
) -> None:
    executor = build(folder, "unreachable_minutes=0.001")
    submitted(executor, slurm, 0)
    slurm.fails(command, *([] if command == "squeue" else [f"sbatch: error: {words}"]))
    with pytest.raises(RunStopped, match=rf"^Slurm has not answered for 0\.001 min \({words}.*same command"):  # noqa: PT012
        executor.submit(task(1))
        executor.poll(20.0)
    executor.close()
    assert slurm.calls("scancel") == []


def test_a_job_whose_submission_was_not_answered_is_looked_for_before_it_is_submitted_again(
    folder: SweepFolder, slurm: FakeSlurm
) -> None:
    executor = build(folder)
    slurm.fails("sbatch", "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation")
    slurm.fails("squeue")
    for number in range(2):
        executor.submit(task(number))
    assert executor.place(0).startswith("task 0 waits for Slurm, which does not answer (Batch job submission failed")
    assert executor.poll(0.01) == []
    slurm.fails("sbatch", None)
    slurm.fails("squeue", None)
    slurm.lists(("77", "PENDING", "", "Priority", name_of(slurm, 0)))  # it had taken the first of them
    executor.poll(0.0)
    names = [name_of(slurm, index) for index in range(len(slurm.submitted()))]
    assert names[0].endswith("-arm-0000-1")
    assert names[-1].endswith("-arm-0001-1")
    assert names.count(names[0]) == 1
    assert executor.place(0) == "job 77 PENDING (Priority)"


def test_a_limit_of_jobs_is_waited_for_where_the_sweep_has_some(folder: SweepFolder, slurm: FakeSlurm) -> None:
    executor = build(folder)
    submitted(executor, slurm, 0)
    limit = "sbatch: error: QOSMaxSubmitJobPerUserLimit\nsbatch: error: Job violates accounting/QOS policy"
    slurm.fails("sbatch", limit)
    executor.submit(task(1))
    assert executor.place(1).startswith("task 1 waits: Slurm takes no more jobs now (QOSMaxSubmitJobPerUserLimit")
    slurm.fails("sbatch", None)
    executor.poll(0.0)
    assert "arm-0001-1" in slurm.submitted()[-1]
    executor.close()
    slurm.fails("sbatch", limit)
    with pytest.raises(ConfigError, match="QOSMaxSubmitJobPerUserLimit"):
        build(folder).submit(task(2))


def test_a_requeued_job_is_not_over_whatever_its_first_start_replied(folder: SweepFolder, slurm: FakeSlurm) -> None:
    executor = build(folder)
    submitted(executor, slurm, 0)
    name = name_of(slurm)
    number = str(attempt_of(folder).read_job())
    for state in ("RUNNING", "COMPLETING", "PENDING", "RUNNING"):
        slurm.lists((number, state, "node1", "BeginTime", name))
        executor.poll(0.0)
        reply(folder, "interrupted")
        assert executor.poll(0.01) == []
    slurm.lists((number, "COMPLETED", "node1", "None", name))
    assert [each.outcome for each in executor.poll(1.0)] == ["interrupted"]
    assert len(slurm.submitted()) == 1


def test_a_parent_that_is_started_again_adopts_its_jobs_by_their_names(folder: SweepFolder, slurm: FakeSlurm) -> None:
    submitted(build(folder), slurm, 0, 1, 2)
    reply(folder, "finished", 1)
    reply(folder, "interrupted", 2)  # of a start before the one that Slurm repeats
    second = build(folder)
    assert [second.adopt(task(number)) for number in range(4)] == [True, False, True, False]
    assert len(slurm.calls("squeue")) == 1
    assert second.poll(0.0) == []
    reply(folder, "finished", 0)
    assert [each.number for each in second.poll(0.0)] == [0]
    assert len(slurm.submitted()) == 3


def test_a_parent_that_is_started_again_while_slurm_is_away_submits_nothing_twice(
    folder: SweepFolder, slurm: FakeSlurm
) -> None:
    submitted(build(folder), slurm, 0)
    second = build(folder)
    slurm.fails("squeue")
    assert second.adopt(task(0))
    assert second.poll(0.01) == []
    slurm.fails("squeue", None)
    second.poll(0.0)
    assert len(slurm.submitted()) == 1
    assert second.place(0) == f"job {attempt_of(folder).read_job()} on node1"


@pytest.mark.parametrize(
    ("known", "outcome", "message"),
    [
        ("JobState=OUT_OF_MEMORY Reason=OutOfMemory ExitCode=0:125 NodeList=n7", "out_of_memory", "for its memory"),
        (
            "JobState=FAILED Reason=NonZeroExitCode ExitCode=66:0 NodeList=n7",
            "refused",
            r"^n7 does not see .*0000-1\.task",
        ),
        ("JobState=FAILED Reason=NonZeroExitCode ExitCode=127:0 NodeList=n7", "refused", r"^n7 cannot start .*python"),
        (
            "JobState=FAILED Reason=JobLaunchFailure ExitCode=0:53 NodeList=n7",
            "refused",
            r"log of job \d+ on n7, as on",
        ),
        ("JobState=FAILED Reason=JobLaunchFailure ExitCode=0:15 NodeList=n7", "died", "killed by signal 15 on n7"),
        ("JobState=FAILED Reason=RaisedSignal:9(Killed) ExitCode=0:9 NodeList=n7", "died", "killed by signal 9 on n7"),
        ("JobState=NODE_FAIL Reason=NodeDown ExitCode=0:0 NodeList=n7", "died", "ended on n7 as NODE_FAIL"),
        ("JobState=CANCELLED Reason=None ExitCode=0:0 NodeList=", "died", "was cancelled"),
        ("JobState=PREEMPTED Reason=None ExitCode=0:15 NodeList=n7", "interrupted", "ended as PREEMPTED"),
        ("JobState=TIMEOUT Reason=TimeLimit ExitCode=0:15 NodeList=n7", "interrupted", "ended as TIMEOUT"),
        ("", "died", "Slurm no longer knows how it ended"),
    ],
)
def test_a_job_without_a_reply_ended_as_slurm_says(
    folder: SweepFolder, slurm: FakeSlurm, known: str, outcome: str, message: str
) -> None:
    executor = build(folder)
    submitted(executor, slurm, 0)
    slurm.lists()
    slurm.describes(known)
    (found,) = executor.poll(1.0)
    assert found.outcome == outcome
    assert re.search(message, found.message)
    if outcome in ("died", "interrupted"):
        assert str(attempt_of(folder).log) in found.message


def test_a_trial_that_slurm_ended_for_its_memory_gets_twice_as_much_up_to_a_limit(
    folder: SweepFolder, slurm: FakeSlurm
) -> None:
    executor = build(folder, memory="1G")
    slurm.describes("JobState=OUT_OF_MEMORY ExitCode=0:125")
    changes = []
    for _ in range(3):
        executor.submit(task())
        slurm.lists()
        assert [each.outcome for each in executor.poll(1.0)] == ["out_of_memory"]
        changes.append(executor.give_more_memory(0))
    assert changes == [
        "its next job gets --memory 2G instead of 1G",
        "its next job gets --memory 4G instead of 2G",
        None,
    ]
    assert [word for call in slurm.submitted() for word in call.split() if word.startswith("--mem")] == [
        "--mem=1024M",
        "--mem=2048M",
        "--mem=4096M",
    ]


def test_more_memory_than_any_node_has_is_not_asked_for(folder: SweepFolder, slurm: FakeSlurm) -> None:
    executor = build(folder, memory="1G")
    slurm.describes("JobState=OUT_OF_MEMORY ExitCode=0:125")
    executor.submit(task())
    slurm.lists()
    executor.poll(1.0)
    slurm.fails("test", "allocation failure: Requested node configuration is not available")
    assert executor.give_more_memory(0) is None


def test_main_memory_does_not_help_a_full_gpu(folder: SweepFolder, slurm: FakeSlurm) -> None:
    executor = build(folder, memory="1G")
    submitted(executor, slurm, 0)
    reply(folder, "out_of_memory")
    assert [each.outcome for each in executor.poll(0.0)] == ["out_of_memory"]
    assert executor.give_more_memory(0) is None


def test_jobs_that_wait_are_cancelled_and_those_that_run_are_asked_to_stop(
    folder: SweepFolder, slurm: FakeSlurm
) -> None:
    executor = build(folder)
    submitted(executor, slurm, 0, 1)
    first, second = (str(attempt_of(folder, number).read_job()) for number in range(2))
    executor.cancel([0, 1])
    assert slurm.calls("scontrol") == [f"update JobId={first},{second} Requeue=0"]
    assert slurm.calls("scancel") == [
        f"--quiet --state=PENDING {first} {second}",
        f"--quiet --signal=TERM --full {first} {second}",
    ]
    reply(folder, "interrupted", 0)
    slurm.lists((second, "CANCELLED", "", "None", name_of(slurm)))
    ended = executor.poll(0.0) + executor.poll(0.5)
    assert sorted((each.number, each.outcome) for each in ended) == [(0, "interrupted"), (1, "interrupted")]
    executor.close()
    assert len(slurm.calls("scancel")) == 2, "they have been told"


def test_a_job_that_was_preempted_just_before_it_is_cancelled_does_not_start_again(
    folder: SweepFolder, slurm: FakeSlurm
) -> None:
    executor = build(folder)
    submitted(executor, slurm, 0)
    job = str(attempt_of(folder, 0).read_job())
    slurm.lists((job, "COMPLETING", "node1", "None", name_of(slurm)), ("77", "COMPLETING", "node1", "None", "other"))
    executor.cancel([0])
    assert slurm.calls("scancel")[2:] == [f"--quiet {job}"]


def test_files_of_a_job_are_read_now_and_then_and_those_of_one_that_slurm_no_longer_has_at_once(
    folder: SweepFolder, slurm: FakeSlurm, monkeypatch: pytest.MonkeyPatch
) -> None:
    executor = build(folder)
    executor.look_seconds = 1000.0
    submitted(executor, slurm, 0)
    reads: list[str] = []
    read = Attempt.read_reply
    monkeypatch.setattr(Attempt, "read_reply", lambda self: (reads.append(self.stem), read(self))[1])
    assert executor.poll(0.0) == []
    assert executor.poll(0.1) == []
    assert len(reads) == 1
    reply(folder, "finished")
    assert executor.poll(0.05) == []
    slurm.lists()
    assert [each.outcome for each in executor.poll(1.0)] == ["finished"]


def test_a_slurm_that_could_not_be_told_to_end_jobs_is_told_when_it_answers(
    folder: SweepFolder, slurm: FakeSlurm
) -> None:
    executor = build(folder)
    submitted(executor, slurm, 0)
    slurm.fails("scancel")
    executor.cancel([0])
    slurm.fails("scancel", None)
    before = len(slurm.calls("scancel"))
    executor.poll(0.0)
    assert len(slurm.calls("scancel")) == before + 2
    executor.poll(0.01)
    assert len(slurm.calls("scancel")) == before + 2


def test_a_trial_for_a_gpu_without_one_asked_for_is_remarked_upon(folder: SweepFolder, slurm: FakeSlurm) -> None:
    assert "no --gpus: each trial gets what Slurm gives" in build(folder, on_gpu=True).sentences[0]
    assert list(build(folder, on_gpu=True, gpus=1).sentences) == []


_SUBMIT = """
import sys
from pathlib import Path
from jepa_lab.sweeps.slurm_commands import submit
submit(["--job-name=a"], "", Path(sys.argv[1]))
"""


def test_an_sbatch_that_outlives_its_parent_is_waited_for_before_jobs_are_looked_for(
    folder: SweepFolder, slurm: FakeSlurm
) -> None:
    submitted(build(folder), slurm, 0)
    lock = folder.path.resolve() / "tasks" / "sbatch.lock"
    slurm.holds("sbatch")
    with subprocess.Popen([sys.executable, "-c", _SUBMIT, str(lock)]) as parent:
        slurm.wait_until_held("sbatch")
        parent.kill()
    second = build(folder)
    before = len(slurm.calls("squeue"))
    assert second.adopt(task(0))
    assert second.poll(0.01) == []
    assert len(slurm.calls("squeue")) == before
    slurm.releases("sbatch")
    second.poll(1.0)
    assert second.place(0) == f"job {attempt_of(folder).read_job()} on node1"
    assert len(slurm.submitted()) == 2


def test_the_sbatch_of_an_earlier_command_is_waited_for_with_a_limit_and_nothing_is_submitted_meanwhile(
    folder: SweepFolder, slurm: FakeSlurm
) -> None:
    executor = build(folder, "unreachable_minutes=0.0001")
    submitted(executor, slurm, 0)
    with FileLock(folder.path.resolve() / "tasks" / "sbatch.lock", "the submission of a job") as its:
        its.acquire(0)
        executor.submit(task(1))
        assert "still at work" in executor.place(1)
        with pytest.raises(RunStopped, match="sbatch of an earlier command is still at work"):
            executor.poll(60.0)
    executor.close()
    assert len(slurm.submitted()) == 1
    assert slurm.calls("scancel") == []  # the job of the first trial goes on
