"""How long a database may take for an answer: what is slow gets through, what hangs is cut off."""

from __future__ import annotations

import select
import socket
from types import SimpleNamespace

import pytest

from jepa_lab.sweeps import answer_limit
from jepa_lab.sweeps.answer_limit import AnswerLimit


def test_a_call_that_was_cut_off_has_twice_the_time_when_it_is_tried_again_up_to_a_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(answer_limit, "ANSWER_SECONDS", 0.1)
    limit, attempts = AnswerLimit(), 0

    def is_answered(seconds: float) -> bool:
        """Whether a server that takes so long could answer before its connection is cut."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            limit.opened(SimpleNamespace(closed=False, fileno=ours.fileno), None)
            with limit.kept():
                is_cut = bool(select.select([ours], [], [], seconds)[0])
                limit._open.clear()
                if is_cut:
                    raise ConnectionError
        return True

    while True:
        attempts += 1
        try:
            assert is_answered(0.3)
            break
        except ConnectionError:
            continue
    assert attempts == 3, "after 0.1 and 0.2 s it is cut off"
    for _ in range(5):
        with pytest.raises(ConnectionError):
            is_answered(0.6)
