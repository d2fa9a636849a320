"""What is noticed about the operators of a step."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from jepa_lab.training import step_watch
from jepa_lab.training.step_watch import objections_to_capture

ONES = torch.ones(3)
SEEN: list[Tensor] = []


def in_place() -> None:
    ONES.mul_(0.5).add_(1.0)


def nothing_but_temporaries() -> Tensor:
    return torch.where(ONES > 0, 0.5, ONES) + torch.arange(3).float().mean()


def to_another_device() -> Tensor:
    return ONES.to("meta")


def copied_over() -> Tensor:
    return torch.empty(3, device="meta").copy_(ONES)


def a_fresh_constant() -> Tensor:
    return ONES * torch.tensor([1.0, 2.0, 3.0])


def a_number_that_grows() -> Tensor:
    SEEN.append(ONES)
    return ONES + len(SEEN)


def a_shape_that_grows() -> Tensor:
    SEEN.append(ONES)
    return torch.zeros(len(SEEN))


def a_tensor_of_the_step_before() -> Tensor:
    SEEN.append(SEEN[-1] + 1 if SEEN else ONES)
    return SEEN[-1]


def another_generator() -> Tensor:
    return torch.rand(3, generator=torch.Generator())


@pytest.mark.parametrize("step", [in_place, nothing_but_temporaries])
def test_steps_that_a_graph_can_repeat_meet_no_objection(step: Callable[[], object]) -> None:
    assert objections_to_capture(step) == []


@pytest.mark.parametrize(
    ("step", "operator"),
    [
        (to_another_device, "_to_copy between host and device"),
        (copied_over, "copy_ between host and device"),
        (a_fresh_constant, "aten.lift_fresh.default"),
        (a_number_that_grows, "aten.add.Tensor"),
        (a_shape_that_grows, "aten.zeros.default"),
        (a_tensor_of_the_step_before, "aten.add.Tensor"),
        (another_generator, "aten.rand.generator"),
    ],
)
def test_what_a_graph_would_get_wrong_is_named_with_its_place(step: Callable[[], object], operator: str) -> None:
    SEEN.clear()
    (found,) = objections_to_capture(step)
    assert operator in found
    assert f"at {__file__}:" in found


@pytest.mark.parametrize(("pinned", "non_blocking"), [(True, True), (True, False), (False, True)])
def test_a_note_to_pinned_memory_that_nobody_waits_for_is_no_objection(
    monkeypatch: pytest.MonkeyPatch, pinned: bool, non_blocking: bool
) -> None:
    arguments = (torch.zeros(3), torch.empty(3, device="meta"), non_blocking)
    monkeypatch.setattr(torch.Tensor, "is_pinned", lambda self: pinned)
    assert step_watch._leaves_a_note("copy_", arguments, {}) == (pinned and non_blocking)
    assert not step_watch._leaves_a_note("copy_", (arguments[1], arguments[0], True), {})
    assert not step_watch._leaves_a_note("_to_copy", arguments, {})
