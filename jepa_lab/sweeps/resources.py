"""What each trial of a sweep gets of a machine: CPU cores, GPUs, memory, time."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta

from pydantic import Field, field_validator

from jepa_lab.registry import ComponentParams, broken_rule

_MEMORY = re.compile(r"(\d+(?:\.\d+)?) ?([MGT])i?B?", re.IGNORECASE)
_TIME = re.compile(r"(\d+(?:\.\d+)?) ?(min|[mhd])")
_CLOCK = re.compile(r"(?:(\d+)-)?(\d{1,2}):([0-5]\d)(?::([0-5]\d))?")
_MIB = {"M": 1, "G": 2**10, "T": 2**20}
_UNITS = {"m": "minutes", "min": "minutes", "h": "hours", "d": "days"}


class Resources(ComponentParams):
    """What each trial gets. Null leaves it to the executor."""

    cpus: int | None = Field(None, ge=1, strict=True, description="CPU cores per trial; also its number of threads.")
    gpus: float | None = Field(
        None,
        ge=0,
        le=1024,
        description="GPUs per trial; a fraction such as 0.5 lets trials share one, where the executor can.",
    )
    memory: str | None = Field(None, description="Main memory per trial, such as 16G or 500M.")
    time: str | None = Field(
        None, description="Longest time of one attempt at a trial, such as 90m, 2h, 1d or 1-12:00:00."
    )

    @field_validator("memory")
    @classmethod
    def _check_memory(cls, value: str | None) -> str | None:
        if value is not None and (_MEMORY.fullmatch(value.strip()) is None or _mebibytes(value) < 1):
            raise broken_rule(f"a size is a number with M, G or T, as in 16G, got {value!r}")
        return value

    @field_validator("time")
    @classmethod
    def _check_time(cls, value: str | None) -> str | None:
        if value is not None and not (_duration(value) or timedelta()) >= timedelta(minutes=1):
            raise broken_rule(
                f"a time is at least a minute, written as in 90m, 2h, 1d, 12:30:00 or 1-12:00:00, got {value!r}"
            )
        return value

    @property
    def memory_mib(self) -> int | None:
        """Memory in MiB."""
        return None if self.memory is None else _mebibytes(self.memory)

    @property
    def duration(self) -> timedelta | None:
        """The time limit."""
        return None if self.time is None else _duration(self.time)


@dataclass(frozen=True)
class Needs:
    """What an executor is to provide for each trial.

    Attributes:
        resources: that were asked for.
        on_gpu: whether the trials may use a GPU.
    """

    resources: Resources
    on_gpu: bool


def _mebibytes(text: str) -> int:
    match = _MEMORY.fullmatch(text.strip())
    assert match is not None, "checked before"
    return round(float(match[1]) * _MIB[match[2].upper()])


def _duration(text: str) -> timedelta | None:
    """A time; None if it is not one."""
    text = text.strip()
    match = _TIME.fullmatch(text)
    if match is not None:
        return timedelta(**{_UNITS[match[2]]: float(match[1])})
    clock = _CLOCK.fullmatch(text)
    if clock is None:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in clock.groups())
    return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
