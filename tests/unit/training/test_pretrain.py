"""The training loop over fakes: what happens, in which order, and what a stop leaves behind."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from jepa_lab.build import build_sampler
from jepa_lab.errors import RunPruned, RunStopped
from jepa_lab.interruption import StopRequested
from jepa_lab.training.finite import FiniteGate
from jepa_lab.training.pretrain import RunCollapsed
from jepa_lab.training.timetable import Timetable
from tests.integration.pipelines import load_tiny
from tests.unit.training.fakes import Loop

TWO_EPOCHS = Timetable(
    epochs=2, steps_per_epoch=3, evaluate_every_epochs=1, log_every_steps=2, checkpoint_every_steps=100
)


@pytest.fixture
def loop(tmp_path: Path) -> Loop:
    return Loop(tmp_path / "STOP", TWO_EPOCHS)


def test_a_run_evaluates_and_saves_before_training_and_at_each_probe_epoch(loop: Loop) -> None:
    loop.pretraining.run()
    assert loop.events == [
        "evaluate",
        "save 0 after batch 0",
        *("step 1", "step 2", "step 3"),
        *("evaluate", "save 3 after batch 3"),
        *("step 4", "step 5", "step 6"),
        *("evaluate", "save 6 after batch 6"),
    ]


def test_rows_of_metrics_hold_the_mean_loss_since_the_row_before(loop: Loop) -> None:
    loop.pretraining.run()
    found = [(step, row["train/loss"]) for step, row in loop.metrics.rows if "train/loss" in row]
    assert found == [(2, 1.5), (3, 3.0), (4, 4.0), (6, 5.5)]


def test_what_compiling_took_and_where_it_is_kept_is_told(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "/home/me/compiled")
    loop.pretraining.run()
    assert "compiled" not in capsys.readouterr().out
    again = Loop(loop.pretraining.stop_file, TWO_EPOCHS)
    again.pretraining.step.compute = replace(again.pretraining.step.compute, compile=True)
    again.pretraining.run()
    told = re.findall("compiled and took the first training step in .*", capsys.readouterr().out)
    assert len(told) == 1
    assert re.fullmatch(r".* in \d+\.\d s; what was compiled is kept in /home/me/compiled for the next start", told[0])


def test_a_resumed_run_takes_the_steps_that_are_left_and_evaluates_nothing_twice(loop: Loop) -> None:
    loop.continue_from(3, evaluated=True)
    loop.pretraining.run()
    assert loop.events[:1] == ["step 4"]
    assert loop.events.count("evaluate") == 1


def test_a_resumed_run_makes_the_evaluation_that_it_owes_first(loop: Loop) -> None:
    loop.continue_from(3, evaluated=False)
    loop.pretraining.run()
    assert loop.events[:3] == ["evaluate", "save 3 after batch 3", "step 4"]


def raising(number: signal.Signals) -> Callable[[int], None]:
    def at_the_fifth(batch: int) -> None:
        if batch == 5:
            signal.raise_signal(number)

    return at_the_fifth


def test_a_signal_while_images_are_read_saves_the_run_as_it_was_before_them(loop: Loop) -> None:
    loop.batches.while_reading = raising(signal.SIGTERM)
    with loop.team.stop, pytest.raises(StopRequested) as caught:
        loop.pretraining.run()
    assert caught.value.signal == signal.SIGTERM
    assert loop.events[-2:] == ["step 4", "save 4 after batch 4"]


def test_a_signal_in_a_step_waits_for_its_end_and_no_batch_is_made_for_nothing(loop: Loop) -> None:
    loop.whole_step.while_computing = lambda step: signal.raise_signal(signal.SIGHUP) if step == 2 else None
    with loop.team.stop, pytest.raises(StopRequested):
        loop.pretraining.run()
    assert loop.events[-2:] == ["step 2", "save 2 after batch 2"]  # the third batch was read, and is read again


def test_a_signal_after_a_checkpoint_saves_it_no_second_time(loop: Loop) -> None:
    loop.batches.while_reading = lambda batch: signal.raise_signal(signal.SIGTERM) if batch == 4 else None
    with loop.team.stop, pytest.raises(StopRequested):
        loop.pretraining.run()
    assert loop.events.count("save 3 after batch 3") == 1
    assert loop.events[-1] == "save 3 after batch 3"


def test_a_signal_in_an_evaluation_saves_the_step_as_one_that_owes_it(loop: Loop) -> None:
    def interrupt_the_second() -> None:
        if loop.evaluator.asked == 2:
            signal.raise_signal(signal.SIGINT)

    loop.evaluator.while_measuring = interrupt_the_second
    with loop.team.stop, pytest.raises(StopRequested):
        loop.pretraining.run()
    assert loop.events[-2:] == ["step 3", "save 3 after batch 3, owes the evaluation 2"]


def test_a_signal_in_the_first_evaluation_leaves_nothing_behind(loop: Loop) -> None:
    loop.evaluator.while_measuring = lambda: signal.raise_signal(signal.SIGINT)
    with loop.team.stop, pytest.raises(StopRequested):
        loop.pretraining.run()
    assert loop.events == []


def test_a_loss_that_is_not_finite_ends_the_run_at_the_next_row_and_names_its_step(loop: Loop) -> None:
    loop.whole_step.losses[1] = float("nan")
    with pytest.raises(RunStopped, match=r"not finite at step 1 .*Last good checkpoint: none"):
        loop.pretraining.run()
    assert loop.events[-1] == "step 2"
    assert not [row for row in loop.metrics.rows if row[0] == 2], "no row, and no checkpoint, of bad numbers"


def test_batches_that_may_be_skipped_are_counted_and_told_and_the_run_goes_on(
    loop: Loop, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    loop.whole_step.step.gate = FiniteGate.open(torch.device("cpu"), "fp32", max_skipped=1)
    loop.whole_step.losses |= {2: float("nan"), 4: float("inf")}
    loop.pretraining.run()
    assert loop.events[-1] == "save 6 after batch 6"
    rows = {step: row for step, row in loop.metrics.rows if "train/loss" in row}
    assert {step: row["train/skipped_steps"] for step, row in rows.items()} == {2: 1, 3: 1, 4: 2, 6: 2}
    assert [rows[step]["train/loss"] for step in (2, 3, 6)] == [1.0, 3.0, 5.5]
    why = "because loss or gradients were not finite"
    first = f"skipped 1 of 2 batches since step 0, {why} (1 in this run so far)"
    second = f"skipped 1 of 1 batches since step 3, {why} (2 in this run so far)"
    assert [record.getMessage() for record in caplog.records] == [first, second]
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning")]
    assert told == [f"warning: {first}", f"warning: {second}"]


def test_more_batches_in_a_row_than_may_be_skipped_end_the_run(loop: Loop) -> None:
    loop.whole_step.step.gate = FiniteGate.open(torch.device("cpu"), "fp32", max_skipped=1)
    loop.whole_step.losses |= {1: float("nan"), 3: float("nan"), 4: float("nan")}
    message = r"not finite at step 3 .* and at the 1 step\(s\) after it \(at most 1 may be skipped\); no weight"
    with pytest.raises(RunStopped, match=message) as caught:
        loop.pretraining.run()
    assert caught.value.exit_code == 3
    assert "raise training.max_skipped_batches (now 1)" in str(caught.value)


def test_a_resumed_run_tells_only_of_batches_that_it_skips_itself(loop: Loop, caplog: pytest.LogCaptureFixture) -> None:
    loop.whole_step.sums.skipped.fill_(3.0)
    loop.continue_from(3, evaluated=True)
    loop.pretraining.run()
    assert not caplog.records


def test_a_validation_loss_that_is_not_finite_ends_the_run(loop: Loop) -> None:
    loop.evaluator.validation_loss = float("inf")
    with pytest.raises(RunStopped, match="validation loss is not finite"):
        loop.pretraining.run()
    assert "save" not in " ".join(loop.events)


def test_a_run_that_is_given_up_ends_at_its_next_probe_epoch_with_a_checkpoint(loop: Loop) -> None:
    loop.pretraining.stop_file.touch()
    with pytest.raises(RunPruned, match="step 3"):
        loop.pretraining.run()
    assert loop.events[-1] == "save 3 after batch 3"


@pytest.mark.parametrize("stops", [True, False])
def test_a_collapse_ends_the_run_only_where_it_is_asked_to(tmp_path: Path, stops: bool) -> None:
    loop = Loop(tmp_path / "STOP", TWO_EPOCHS, stop_on_collapse=stops)
    loop.evaluator.collapsed = True
    if stops:
        with pytest.raises(RunCollapsed, match="collapsed by step 0"):
            loop.pretraining.run()
    else:
        loop.pretraining.run()
        assert loop.events[-1] == "save 6 after batch 6"


@pytest.mark.parametrize("log", [1, 3, 10])
@pytest.mark.parametrize("save", [4, 100])
@pytest.mark.parametrize("every", [1, 2, 5])
def test_the_timetable_by_counting(log: int, save: int, every: int) -> None:
    timetable = Timetable(5, 4, every, log, save)
    for epoch in range(5):
        for within in range(1, 5):
            step, ends = 4 * epoch + within, within == 4
            evaluates = ends and ((epoch + 1) % every == 0 or epoch == 4)
            saves = evaluates or step % save == 0
            assert timetable.evaluates(step) == evaluates
            assert timetable.saves(step) == saves
            assert timetable.logs(step) == (saves or step % log == 0)


def test_masks_of_a_compiled_step_keep_their_shape_on_a_cpu_and_others_are_trimmed(tmp_path: Path) -> None:
    sampler = build_sampler(load_tiny(tmp_path, "masker.num_targets=3").pipeline)

    def shapes(compiled: bool) -> set[tuple[torch.Size, torch.Size]]:
        generator = torch.Generator().manual_seed(0)
        drawn = [sampler.sample(2, generator, fixed_shapes=compiled) for _ in range(30)]
        return {(masks.context.shape, masks.target.shape) for masks in drawn}

    assert len(shapes(compiled=True)) == 1
    assert len(shapes(compiled=False)) > 1
