"""Who trains the trials: what the ablation file says, and what the command line says over it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jepa_lab.errors import ConfigError
from jepa_lab.sweeps.ablation import load_ablation
from jepa_lab.sweeps.engine import NO_ENGINE_SETTINGS, EngineChoice, choose_engine
from jepa_lab.sweeps.executors import EXECUTORS, local
from jepa_lab.sweeps.executors.local import LocalExecutor
from jepa_lab.sweeps.resources import Resources
from tests.integration.pipelines import load_tiny
from tests.unit.sweeps.ablations import plan_of, refusal

ARMS = "arms: {a: {}, b: {masker: random}}\nbaseline: a\n"


def test_the_ablation_file_chooses_and_the_command_line_overrides(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, f"{ARMS}executor: {{name: local, slots: 3}}\nresources: {{cpus: 2}}\n")
    in_file = choose_engine(plan.engine, EngineChoice(), on_gpu=False)
    assert (in_file.name, in_file.planned_slots(), in_file.needs.resources.cpus) == ("local", 3, 2)
    given_slots = choose_engine(plan.engine, EngineChoice(slots=5, cpus=1), on_gpu=False)
    assert (given_slots.planned_slots(), given_slots.needs.resources.cpus) == (5, 1)
    option = choose_engine(plan.engine, EngineChoice(executor="local", options=["slots=4"]), on_gpu=False)
    assert option.planned_slots() == 4


def test_the_choice_changes_no_result(tmp_path: Path) -> None:
    chosen = plan_of(tmp_path, f"{ARMS}executor: {{name: local, slots: 3}}\nresources: {{cpus: 2}}\n")
    assert chosen.digest == plan_of(tmp_path, ARMS).digest


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (EngineChoice(executor="slrum"), r"^--executor: .*'slrum'.*slurm|^--executor: .*'slrum'"),
        (
            EngineChoice(options=["slotz=3"]),
            r"^--executor-option slotz: unknown key executor\.slotz; did you mean 'slots'",
        ),
        (EngineChoice(options=["slots"]), r"^--executor-option: .* must have the form key=value"),
        (EngineChoice(options=["slots=0"]), r"^--executor-option slots: executor\.slots must be greater"),
        (
            EngineChoice(memory="16"),
            r"^--memory: resources\.memory: a size is a number with M, G or T, as in 16G, got '16'",
        ),
        (EngineChoice(memory="0G"), r"^--memory: .*got '0G'"),
        (EngineChoice(time="2 weeks"), r"^--time: .*as in 90m, 2h, 1d, 12:30:00 or 1-12:00:00, got '2 weeks'"),
        (EngineChoice(time="0m"), r"^--time: .*at least a minute"),
        (EngineChoice(memory="16G"), r"^--memory 16G: the local executor sets no limits of its own"),
        (EngineChoice(time="2h"), r"^--time 2h: the local executor sets no limits"),
        (EngineChoice(gpus=1), r"^--gpus 1 needs a GPU, and training\.device=cpu uses none"),
    ],
)
def test_what_cannot_be_meant_is_refused_with_the_option_that_said_it(choice: EngineChoice, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        choose_engine(NO_ENGINE_SETTINGS, choice, on_gpu=False)


def test_a_mistake_in_the_ablation_file_has_its_line(tmp_path: Path) -> None:
    (line,) = refusal(tmp_path, f"{ARMS}executor: {{name: local, slot: 3}}\n")
    assert line.startswith("example.yaml:4: unknown key executor.slot")
    (line,) = refusal(tmp_path, f"{ARMS}resources: {{memory: lots}}\n")
    assert line.startswith("example.yaml:4: resources.memory")


def test_parts_of_a_gpu_are_slots_that_share_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "visible_gpus", lambda: ["0", "1"])
    engine = choose_engine(NO_ENGINE_SETTINGS, EngineChoice(gpus=0.25), on_gpu=True)
    assert (engine.planned_slots(), engine.shares_gpus()) == (8, True)
    for gpus in (0.3, 2.0, 0.0):
        with pytest.raises(
            ConfigError, match=rf"^--gpus {gpus:g}: on this machine a trial gets one GPU or a whole part"
        ):
            choose_engine(NO_ENGINE_SETTINGS, EngineChoice(gpus=gpus), on_gpu=True)


def test_cores_that_each_trial_gets_divide_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "num_cores", lambda: 16)
    for cpus, slots in ((4, 4), (5, 3), (32, 1)):
        assert (
            LocalExecutor.planned_slots(
                LocalExecutor.Params(), choose_engine(NO_ENGINE_SETTINGS, EngineChoice(cpus=cpus), on_gpu=False).needs
            )
            == slots
        )


@given(st.integers(1, 10**6), st.sampled_from(["m", "min", "h", "d"]))
def test_times_are_read_as_they_are_written(count: int, unit: str) -> None:
    seconds = {"m": 60, "min": 60, "h": 3600, "d": 86400}[unit]
    found = Resources(time=f"{count}{unit}").duration
    assert found is not None
    assert found.total_seconds() == count * seconds


def test_clock_times_and_sizes_are_read_as_slurm_reads_them() -> None:
    for text, seconds in (("1-12:00:00", 129_600), ("12:30:00", 45_000), ("1:30", 5400)):
        found = Resources(time=text).duration
        assert found is not None
        assert found.total_seconds() == seconds
    assert [Resources(memory=text).memory_mib for text in ("16G", "500M", "1.5 GiB", "1T")] == [16384, 500, 1536, 2**20]


PLUGIN = """\
from pydantic import Field
from jepa_lab.registry import ComponentParams
from jepa_lab.sweeps.executors.base import EXECUTORS, Executor


@EXECUTORS.register("mine", summary="An engine of somebody else.", source="test")
class Mine(Executor):
    class Params(ComponentParams):
        jobs: int = Field(2, description="Trials in parallel.")

    @staticmethod
    def planned_slots(params, needs):
        return params.jobs

    @staticmethod
    def shares_gpus(params, needs):
        return False
"""


def test_an_executor_that_a_plug_in_registers_can_be_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "module_with_an_engine.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(EXECUTORS, "_entries", dict(EXECUTORS._entries))
    load_tiny(tmp_path, "plugins=[module_with_an_engine]")
    engine = choose_engine(NO_ENGINE_SETTINGS, EngineChoice(executor="mine", options=["jobs=7"]), on_gpu=False)
    assert (engine.name, engine.planned_slots()) == ("mine", 7)
    (tmp_path / "a.yaml").write_text("base: tiny.yaml\narms: {a: {}, b: {loss: l2}}\nexecutor: {name: mine, jobs: 3}\n")
    assert choose_engine(load_ablation(tmp_path / "a.yaml").engine, EngineChoice(), on_gpu=False).planned_slots() == 3
