"""Telling how far a long look at files is."""

from __future__ import annotations

import time

import pytest

from jepa_lab.data.long_work import LongWork


def test_short_work_is_silent_and_long_work_tells_every_ten_seconds(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    work = LongWork("decoding", 4000)
    for _ in range(9):
        now += 1
        work.add(100)
    assert capsys.readouterr().out == ""
    now += 1
    work.add(100)
    assert capsys.readouterr().out == "decoding: 1,000 of 4,000 images, 30 s left\n"
    now += 9
    work.add(100)
    assert capsys.readouterr().out == ""
