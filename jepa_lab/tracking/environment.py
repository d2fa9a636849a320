"""What a run ran on: versions, machine, commit, command; no credentials and no environment variables."""

from __future__ import annotations

import hashlib
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

from jepa_lab import __version__
from jepa_lab.tracking.credentials import scrub

_PACKAGES = ("torch", "torchvision", "numpy", "scikit-learn")
_CPU = re.compile(r"\bcpu\b( \([^)]*\))?")


def describe_environment(command: Sequence[str], device: str) -> dict[str, Any]:
    """The conditions of a number: JSON values for `environment.json`.

    Args:
        command: the command line; credentials in its URIs are left out.
        device: the device in words, such as "cpu" or "NVIDIA H200".
    """
    import torch

    return {
        "jepa_lab": __version__,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "platform": platform.platform(),
        "cpu_model": _cpu_model(),
        "cpu_count": os.cpu_count(),
        "num_threads": torch.get_num_threads(),
        "device": device,
        "executable": sys.executable,
        "command": [scrub(word) for word in command],
        "git": _git_state(Path(__file__).resolve().parents[1]),
    }


def code_versions() -> dict[str, str]:
    """What the processes of one run must have in common, in words: they compute together and exchange tensors."""
    return {"jepa-lab": f"{__version__}, source {source_digest()[:8]}", "PyTorch": str(_version("torch"))}


@cache
def source_digest() -> str:
    """SHA-256 over the Python files of this package."""
    package, digest = Path(__file__).resolve().parents[1], hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        digest.update(f"{file.relative_to(package).as_posix()}\0".encode() + file.read_bytes() + b"\0")
    return digest.hexdigest()


def environment_in_words(environment: Mapping[str, Any]) -> tuple[str, ...]:
    """The conditions of a number as sentences: versions and commit, and the machine.

    Args:
        environment: content of `environment.json`.
    """
    packages = ", ".join(f"{name} {version}" for name, version in environment["packages"].items())
    git = environment["git"]
    commit = "" if git is None else f", commit {git['commit'][:12]}{' with changes' if git['dirty'] else ''}"
    return (
        f"jepa-lab {environment['jepa_lab']}{commit}; Python {environment['python']}, {packages}",
        f"{environment['cpu_model']}, {environment['cpu_count']} cores; device {environment['device']}",
    )


def device_in_words(environment: Mapping[str, Any]) -> str:
    """The kind of device that trained a run, such as "NVIDIA H200" or "cpu (AMD EPYC 9R14)".

    Numbers from two kinds differ in their rounding. A run that was resumed on another kind names both.

    Args:
        environment: content of `environment.json`.
    """
    return " and ".join(dict.fromkeys([_device(environment), *environment.get("resumed_on", ())]))


def resumed_on(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """The environment of a run that is resumed: where it began, with the kinds of devices since.

    Args:
        before: content of `environment.json`. now: of the machine that resumes the run.
    """
    kinds = [_device(before), *before.get("resumed_on", ())]
    return {**before} if _device(now) in kinds else {**before, "resumed_on": [*kinds[1:], _device(now)]}


def _device(environment: Mapping[str, Any]) -> str:
    """The device as the run describes it, but a CPU by its model: slots of one machine may differ in their threads."""
    return _CPU.sub(lambda found: f"cpu ({environment['cpu_model']})", str(environment["device"]))


def environment_changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What decides about rounding and differs, in words: `torch 2.9 -> 2.10`."""

    def deciding(environment: Mapping[str, Any]) -> dict[str, Any]:
        keys = ("jepa_lab", "python", "cpu_model", "device")
        return {**environment["packages"], **{key: environment[key] for key in keys}}

    first, second = deciding(before), deciding(now)
    return [f"{key} {first.get(key)} -> {second.get(key)}" for key in second if first.get(key) != second.get(key)]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpu_model() -> str:
    """The processor's name; Linux keeps it in /proc/cpuinfo, where `platform` does not look."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _git_state(package: Path) -> dict[str, Any] | None:
    """Commit and dirty flag of the code; None where the code is not under version control.

    Asks whether git tracks this very package: an installed copy may lie inside somebody else's checkout.
    """
    if _git(package, "ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    commit, changes = _git(package, "rev-parse", "HEAD"), _git(package, "status", "--porcelain", "--", ".")
    return None if commit is None or changes is None else {"commit": commit, "dirty": bool(changes)}


def _git(folder: Path, *arguments: str) -> str | None:
    """The output of a git command, or None where there is no git or it has nothing to say."""
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *arguments],
            capture_output=True, text=True, timeout=20, check=False, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
