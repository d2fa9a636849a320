"""Kinds of devices: nothing is said about one kind, and arms that differ in it are named."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from jepa_lab.reports.content import cleaned
from jepa_lab.reports.device_notes import notes_on_devices
from jepa_lab.reports.table import build_table
from jepa_lab.tracking.environment import device_in_words, resumed_on
from jepa_lab.training.devices import Compute
from tests.unit.reports.frames import make_content

H100, H200 = "NVIDIA H100", "NVIDIA H200"


def notes(devices: list[str | None]) -> list[str]:
    """Of two arms with three seeds each: the devices of the baseline's trials, then of the others."""
    content = make_content(("base", "wide"), 3)
    return notes_on_devices(cleaned(replace(content, trials=content.trials.assign(device=devices))))


@pytest.mark.parametrize("devices", [[H100] * 6, [None] * 6, [H100, None, H100, None, H100, H100]])
def test_one_kind_is_no_news(devices: list[str | None]) -> None:
    assert notes(devices) == []


def test_several_kinds_that_all_arms_share_seed_by_seed_are_fair() -> None:
    (note,) = notes([H100, H200, H100] * 2)
    assert "NVIDIA H100 (4 trials), NVIDIA H200 (2 trials)" in note
    assert "fair" in note


def test_arms_that_differ_from_the_baseline_in_it_are_named_below_the_table() -> None:
    content = make_content(("base", "wide", "deep"), 2)
    trials = content.trials.assign(device=[H100, H100, H200, H100, H100, H100])
    (note,) = notes_on_devices(cleaned(replace(content, trials=trials)))
    assert "those of the devices: wide. " in note
    table = build_table(cleaned(replace(content, trials=trials)))
    assert note in table.footnotes


def test_the_kind_of_a_cpu_is_its_model_and_a_resumed_run_names_both() -> None:
    first = {"device": Compute(torch.device("cpu"), "fp32", False).describe(), "cpu_model": "EPYC"}
    gpu = {"device": H100, "cpu_model": "Xeon"}
    assert device_in_words(first) == "cpu (EPYC)"
    assert device_in_words({**first, "device": "2 processes, each on cpu (1 thread)"}).endswith("each on cpu (EPYC)")
    assert resumed_on(first, first) == first
    once = resumed_on(first, gpu)
    assert device_in_words(once) == "cpu (EPYC) and NVIDIA H100"
    assert resumed_on(once, first) == once
    assert resumed_on(once, gpu) == once
    assert device_in_words(resumed_on(once, {"device": H200, "cpu_model": ""})).endswith("and NVIDIA H200")
