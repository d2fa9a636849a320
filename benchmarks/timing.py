"""What all benchmarks share: a clock, the device's own rate, the conditions under which numbers were taken."""

from __future__ import annotations

import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from jepa_lab.training.devices import Compute

_MATRIX_SIDE = {"cuda": 8192, "mps": 4096, "cpu": 1024}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
BLOCK = 5
"""Calls timed together: the device then works on one while the host prepares the next, as in training."""


def seconds_per_call(action: Callable[[], object], compute: Compute, blocks: int, block: int = BLOCK) -> list[float]:
    """Time of one call in each of `blocks` blocks, between which alone the host waits for the device."""
    times = []
    for _ in range(blocks):
        compute.synchronize()
        started = time.perf_counter()
        for _ in range(block):
            action()
        compute.synchronize()
        times.append((time.perf_counter() - started) / block)
    return times


def matrix_rate(compute: Compute) -> float:
    """FLOP/s of a large square matrix product of random numbers in the run's precision."""
    side = _MATRIX_SIDE[compute.device.type]
    left, right = (torch.randn(side, side, device=compute.device, dtype=DTYPES[compute.precision]) for _ in range(2))
    for _ in range(3):
        left @ right
    return 2 * side**3 / statistics.median(seconds_per_call(lambda: left @ right, compute, blocks=10))


def conditions(compute: Compute) -> str:
    """One line: device, precision, versions, commit. Numbers without it mean nothing."""
    return (
        f"{compute.describe()}, {compute.precision}, {os.cpu_count()} CPU cores; torch {torch.__version__}, "
        f"Python {platform.python_version()}; commit {_commit()}"
    )


def _commit() -> str:
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent,
        check=False,
    )
    return found.stdout.strip() or "unknown (not a git checkout)"


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, its columns aligned so that it can be read in a terminal too."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        return "| " + " | ".join(cell.ljust(width) for cell, width in zip(cells, widths, strict=True)) + " |"

    return "\n".join([line(header), "| " + " | ".join("-" * width for width in widths) + " |", *map(line, rows)])


def report(title: str, body: str, compute: Compute, command: str, out: Path | None) -> str:
    """A benchmark's Markdown: what, the table, the conditions and the command; also written to `out`."""
    text = f"# {title}\n\n{body}\n\n{conditions(compute)}\n\n    {command}\n"
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text)
    return text
