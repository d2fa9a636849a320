"""Which folder a command means: that of a path, or that of a name under the root of the runs or of the sweeps."""

from __future__ import annotations

import difflib
import os
from collections.abc import Sequence
from pathlib import Path

from jepa_lab.errors import RunFolderError


def find_folder(given: Path, roots: Sequence[Path], kind: str = "run") -> Path:
    """The folder that a user means; a folder of that path comes before one of that name under a root.

    Args:
        given: a path, or a name.
        roots: folders of run folders or of sweep folders.
        kind: what the folder records, for the message.
    Raises:
        RunFolderError: there is neither, naming the nearest names.
    """
    places = [given, *(root / given for root in roots)] if _is_name(given) else [given]
    there = [place for place in places if os.path.isdir(place)]  # unlike `is_dir`, also of a name that is too long
    # A folder of another kind that happens to have the name does not hide the run.
    found = next((place for place in there if (place / "config.yaml").is_file()), None)
    if found is not None or there:
        return found or there[0]
    if os.path.exists(given):
        raise RunFolderError(
            f"{given} is a file, not a {kind} folder; give the {kind}'s name or the path that it printed"
        )
    below = f", nor one of that name under {' or '.join(map(str, roots))}" if len(places) > 1 else ""
    raise RunFolderError(
        f"there is no {kind} folder {given}{below}{_near(given.name, roots)}; give the {kind}'s name or the path that "
        "it printed"
    )


def named_folder(name: str, roots: Sequence[Path]) -> Path | None:
    """The folder under a root that records a run or a sweep of this name; None where there is none."""
    places = [root / name for root in roots] if _is_name(Path(name)) else []
    return next((place for place in places if os.path.isfile(place / "run.json")), None)


def _is_name(given: Path) -> bool:
    return len(given.parts) == 1 and not given.is_absolute() and given.name != ".."


def _near(name: str, roots: Sequence[Path]) -> str:
    known = sorted(path.name for root in roots if root.is_dir() for path in root.iterdir() if _is_shown(path))
    near = [each for each in known if each.startswith(name)][:3] or difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {' or '.join(map(repr, near))}?)" if name and near else ""


def _is_shown(path: Path) -> bool:
    return path.is_dir() and not path.name.startswith(".")
