"""The gate before updates, its loss scale, and the mean loss of the steps that count."""

from __future__ import annotations

import math

import pytest
import torch

from jepa_lab.training.finite import FiniteGate, StepSums

CPU = torch.device("cpu")


def test_refused_steps_do_not_count_in_the_mean_loss() -> None:
    loss = StepSums(CPU)
    for value, refused in ((2.0, 0.0), (math.inf, 1.0), (4.0, 0.0), (math.nan, 1.0)):
        loss.add(torch.tensor(value), torch.tensor(refused))
    assert loss.mean_loss() == 3.0
    loss.begin_row()
    loss.add(torch.tensor(5.0), torch.tensor(0.0))
    assert loss.mean_loss() == 5.0


def test_a_mean_over_refused_steps_alone_is_not_a_number() -> None:
    loss = StepSums(CPU)
    loss.add(torch.tensor(math.inf), torch.tensor(1.0))
    assert math.isnan(loss.mean_loss())


def test_the_mean_goes_on_from_a_checkpoint() -> None:
    first, second = StepSums(CPU), StepSums(CPU)
    first.add(torch.tensor(1.0), torch.tensor(0.0))
    second.restore(first.state())
    second.add(torch.tensor(2.0), torch.tensor(0.0))
    assert second.mean_loss() == pytest.approx(1.5)


def test_fp16_gate_halves_the_scale_and_stops_only_after_twenty_refusals_in_a_row() -> None:
    gate = FiniteGate.open(torch.device("cpu"), "fp16")
    good, bad = torch.tensor(1.0), torch.tensor(float("inf"))
    for step in range(1, 20):
        assert gate.judge(bad, good, step) == 1
    assert int(gate.stopped_at) == 0
    assert gate.judge(good, good, 20) == 0
    assert gate.loss_scale == 65536 / 2**19
    for step in range(21, 41):
        gate.judge(bad, good, step)
    assert int(gate.stopped_at) == 21
    assert gate.judge(good, good, 41) == 1


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_gate_that_may_skip_two_in_a_row_shuts_at_the_third_and_names_the_first(precision: str) -> None:
    gate, sums = FiniteGate.open(CPU, precision, max_skipped=2), StepSums(CPU)
    good, bad = torch.tensor(1.0), torch.tensor(math.nan)
    steps = [bad, bad, good, bad, good, good, bad, bad, bad, good]
    refused = [gate.judge(loss, good, step) for step, loss in enumerate(steps, start=1)]
    for loss, judged in zip(steps, refused, strict=True):
        sums.add(loss, judged)
    assert [int(judged) for judged in refused] == [1, 1, 0, 1, 0, 0, 1, 1, 1, 1]
    assert int(gate.stopped_at) == 7
    assert sums.skipped_steps() == 7
    assert sums.mean_loss() == 1.0


def test_fp16_gate_doubles_the_scale_after_two_thousand_good_steps() -> None:
    gate = FiniteGate.open(torch.device("cpu"), "fp16")
    for step in range(1, 2001):
        gate.judge(torch.tensor(1.0), torch.tensor(1.0), step)
    assert gate.loss_scale == 2 * 65536


def test_a_refusal_puts_off_the_growth_of_the_scale() -> None:
    gate = FiniteGate.open(CPU, "fp16")
    good, bad = torch.tensor(1.0), torch.tensor(math.inf)
    for step in range(1, 2000):
        gate.judge(good, good, step)
    gate.judge(bad, good, 2000)
    for step in range(2001, 4000):
        gate.judge(good, good, step)
    assert gate.loss_scale == 65536 / 2
    gate.judge(good, good, 4000)
    assert gate.loss_scale == 65536


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
def test_without_fp16_there_is_no_scale_and_the_first_refusal_shuts_the_gate(precision: str) -> None:
    gate = FiniteGate.open(CPU, precision)
    for step in range(1, 2002):
        assert gate.judge(torch.tensor(1.0), torch.tensor(1.0), step) == 0
    gate.judge(torch.tensor(math.nan), torch.tensor(1.0), 2002)
    assert gate.loss_scale == 1
    assert int(gate.stopped_at) == 2002


def test_the_scale_goes_on_from_a_checkpoint() -> None:
    first, second = FiniteGate.open(CPU, "fp16"), FiniteGate.open(CPU, "fp16")
    first.judge(torch.tensor(math.inf), torch.tensor(1.0), 1)
    for step in range(2, 2001):
        first.judge(torch.tensor(1.0), torch.tensor(1.0), step)
    second.restore(first.state())
    for gate in (first, second):
        gate.judge(torch.tensor(1.0), torch.tensor(1.0), 2001)
        assert gate.loss_scale == 65536
