"""The log of a run: what was said, a line each."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from jepa_lab.errors import DataError, RunStopped, printable
from jepa_lab.tracking.run_log import LOGGER, RunLog

NAME = "x\nERROR root: y\x1b[31m\u2028.png"


def test_a_message_is_one_line_whatever_is_in_it(tmp_path: Path) -> None:
    with RunLog(tmp_path / "log.txt"):
        logging.getLogger(LOGGER).warning("left out: %s", NAME)
    (line,) = (tmp_path / "log.txt").read_text().splitlines()
    assert line.endswith(r"WARNING jepa_lab: left out: x\nERROR root: y\x1b[31m\u2028.png")


def test_the_error_that_ends_a_run_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(RunStopped), RunLog(tmp_path / "log.txt"):
        raise RunStopped(NAME)
    assert len((tmp_path / "log.txt").read_text().splitlines()) == 1


def test_the_lines_of_a_traceback_are_indented_and_printable(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ERROR root"), RunLog(tmp_path / "log.txt"):
        raise ValueError(NAME)
    first, *others = (tmp_path / "log.txt").read_text().split("\n")[:-1]
    assert first.endswith("CRITICAL jepa_lab: crashed")
    assert others[0] == "  Traceback (most recent call last):"
    assert all(line.startswith("  ") for line in others)
    assert r"y\x1b[31m\u2028.png" in others[-1]


def test_errors_escape_what_controls_a_terminal_and_keep_what_people_write() -> None:
    assert str(RunStopped("two\nlines \x1b[2J é 猫")) == "two\nlines \\x1b[2J é 猫"
    assert str(DataError(f"{NAME} is bad")) == r"x\nERROR root: y\x1b[31m\u2028.png is bad"
    assert printable("\x85\udcff\t", keep="\t") == "\\u0085\\udcff\t"
