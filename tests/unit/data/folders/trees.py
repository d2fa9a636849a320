"""Trees of files that are never opened."""

from __future__ import annotations

from pathlib import Path


def make(root: Path, *names: str) -> Path:
    """Write these files, with the folders that they are in."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"not opened")
    return root
