"""Where images live: on the device (resident), or off it until their batch comes (streaming)."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from jepa_lab.data.workers import Workers, default_worker_count
from jepa_lab.errors import ConfigError, Key

Residency = Literal["auto", "resident", "streaming"]

DEVICE_SHARE = 0.25
"""Most of a GPU's memory that the training images may take under `auto`; the rest is for the model and its step."""

_RESIDENCY = Key("residency", "data")  # there alone: the probe's own images are held in the same way

HOST_SHARE = 0.25
"""Most of the available host memory that all images may take under `auto`: splitting copies them once, and features
and the model need room too."""


@dataclass(frozen=True)
class Loading:
    """How the images of a run are held and read.

    Attributes:
        residency: what was asked for.
        device: of the training.
        workers: who decodes what streams.
        processes: of the same run on this machine, each of which holds images of its own.
    """

    residency: Residency
    device: torch.device
    workers: Workers
    processes: int = 1

    @classmethod
    def of(cls, residency: Residency, num_workers: int | None, device: torch.device, processes: int = 1) -> Loading:
        """With the settings of a pipeline; `num_workers=None` shares the cores among the processes."""
        count = max(1, default_worker_count() // processes) if num_workers is None else num_workers
        return cls(residency, device, Workers(count, pin_memory=device.type == "cuda"), processes)

    def keeps_resident(self, train_bytes: int, host_bytes: int) -> bool:
        """Whether uint8 pixels are to be held in memory.

        Args:
            train_bytes: of the training images, which would live on the device.
            host_bytes: of what would have to be read into host memory for that; 0 if it is there already.
        Raises:
            ConfigError: `resident` was asked for, and cannot be.
        """
        if self.residency == "streaming":
            return False
        if self.residency == "resident":
            available = available_host_memory() // self.processes
            if host_bytes > available:
                raise ConfigError(
                    _RESIDENCY,
                    f"=resident takes {host_bytes / 2**30:,.1f} GiB for the decoded images, and "
                    f"{available / 2**30:,.1f} GiB of memory are available; use ",
                    _RESIDENCY,
                    "=auto, which streams them",
                )
            return True
        if host_bytes > HOST_SHARE * available_host_memory() // self.processes:
            return False
        return self.device.type != "cuda" or train_bytes <= DEVICE_SHARE * _device_memory(self.device)


def _device_memory(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).total_memory


def available_host_memory(root: Path = Path("/")) -> int:
    """Bytes that this process can still take: what the machine has free, or what its container is allowed.

    Args:
        root: of the file system; for tests.
    """
    limits = [_machine_memory(root)]
    for group in _control_groups(root):
        limits += _group_memory(group)
    return max(0, min(limits))


def _machine_memory(root: Path) -> int:
    info = root / "proc/meminfo"
    if not info.is_file():  # not Linux: all memory, since there is no portable way to ask for what is free
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    fields = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
    return int(fields["MemAvailable"].split()[0]) * 1024


def _control_groups(root: Path) -> list[Path]:
    """Folders of the control groups that this process's memory counts for, of version 1 and 2, with their parents."""
    listing = root / "proc/self/cgroup"
    if not listing.is_file():
        return []
    folders: list[Path] = []
    for line in listing.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        top = root / "sys/fs/cgroup" / controllers
        inside = top / path.strip("/")
        # In a container the path may be that of the host; its own limits are then at the top.
        folders += [folder for folder in (inside, *inside.parents) if folder == top or top in folder.parents]
    return folders


def _group_memory(folder: Path) -> list[int]:
    """What the limits of one control group leave, in bytes; none without a limit."""
    for limit_name, usage_name in (
        ("memory.max", "memory.current"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        limit, usage, statistics = folder / limit_name, folder / usage_name, folder / "memory.stat"
        if not (limit.is_file() and usage.is_file()) or limit.read_text().strip() == "max":
            continue
        fields = dict(line.split() for line in statistics.read_text().splitlines()) if statistics.is_file() else {}
        # Cached files count as used, and go when memory is needed.
        cached = int(fields.get("inactive_file", 0))
        return [int(limit.read_text()) - int(usage.read_text()) + cached]
    return []
