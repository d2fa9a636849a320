"""Trees of files that are never opened."""

from __future__ import annotations

from pathlib import Path

from jepa_lab.data.folders.tree import ImageTree


def make(root: Path, *names: str) -> Path:
    """Write these files, with the folders that they are in."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"not opened")
    return root


def told(tree: ImageTree) -> tuple[str, ...]:
    """What a user is told about the folders of `data`."""
    return tuple(note.text("data") for note in tree.findings.notes)
