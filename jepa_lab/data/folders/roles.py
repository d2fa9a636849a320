"""Which folders of a data set hold its training, validation and test images, by their usual names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from jepa_lab.data.folders.scan import folders_in
from jepa_lab.errors import DataError

TRAINING = ("train", "training")
VALIDATION = ("val", "valid", "validation")
TEST = ("test", "testing")


@dataclass(frozen=True)
class SplitFolders:
    """The folders of a data set by their role; None where there is none.

    Attributes:
        others: names of folders without a role, sorted.
    """

    train: Path | None
    validation: Path | None
    test: Path | None
    others: tuple[str, ...]

    def held_out(self) -> tuple[Path, ...]:
        """Folders that pretraining never sees."""
        return tuple(folder for folder in (self.validation, self.test) if folder is not None)


def find_split_folders(root: Path) -> SplitFolders:
    """Look for the usual names, in upper or lower case: `Train/` and `TEST/` are what other systems export.

    Raises:
        DataError: two folders have the same role, or `root` cannot be listed.
    """
    names = folders_in(root)
    train, validation, test = (_with_role(root, names, role) for role in (TRAINING, VALIDATION, TEST))
    others = tuple(name for name in names if name.lower() not in TRAINING + VALIDATION + TEST)
    return SplitFolders(train, validation, test, others)


def _with_role(root: Path, names: tuple[str, ...], role: tuple[str, ...]) -> Path | None:
    found = [name for name in names if name.lower() in role]
    if len(found) > 1:
        every = " and ".join(f"{name}/" for name in found)
        raise DataError(
            f"{root} holds {every}, which have the same role; keep one of them, or rename the other", keys=["root"]
        )
    return root / found[0] if found else None
