"""The pipelines and ablations that come with jepa-lab, by their names: `digits` for `pipelines/digits.yaml`.

In a checkout `jepa_lab/shipped` links to the folders at the top; an installed package holds their files.
"""

from __future__ import annotations

import itertools
import os.path
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from jepa_lab.errors import ConfigError
from jepa_lab.registry import did_you_mean

Kind = Literal["pipeline", "ablation"]

_SUFFIX = ".yaml"


def shipped_files(kind: Kind) -> dict[str, Path]:
    """Name -> file of all that come with jepa-lab."""
    folder = Path(__file__).parents[1] / "shipped" / f"{kind}s"
    return {file.stem: file for file in sorted(folder.glob(f"*{_SUFFIX}"))}


def find_file(given: Path, kind: Kind) -> tuple[Path, str | None]:
    """The file that is meant by what was given on the command line.

    A path is taken as it is. A bare name is a file of the working folder (`NAME.yaml`, or `pipelines/NAME.yaml`), else
    the one that comes with jepa-lab.

    Returns:
        The file, and a sentence about the choice where there was one.
    Raises:
        ConfigError: there is no such file, and what the name of one that comes with jepa-lab may be.
    """
    known = shipped_files(kind)
    if not _is_name(given) or (os.path.exists(given) and str(given) not in known):
        if not os.path.exists(given) and given.stem in known:
            raise ConfigError(
                f"{given}: no such file; `{given.stem}`, without folder and suffix, is the {kind} of jepa-lab"
            )
        return given, None  # whoever reads it says what is wrong
    for file in _own_files(given, kind):
        if os.path.isfile(file):
            note, shipped = f"using {file} of this folder", known.get(str(given))
            hides = shipped is not None and not os.path.samefile(file, shipped)  # in a checkout they are one
            return file, f"{note}, not the {kind} {given} that comes with jepa-lab" if hides else note
    if str(given) not in known:
        raise ConfigError(
            f"{given}: no such file, and no {kind} of this name comes with jepa-lab{did_you_mean(str(given), known)}"
        )
    return known[str(given)], f"using the {kind} {given} that comes with jepa-lab"


def find_either(given: Path, kinds: Sequence[Kind]) -> tuple[Path, str | None]:
    """The file that is meant where files of several kinds may be; a name is taken for the first kind that has it.

    Raises:
        ConfigError: see `find_file`.
    """
    having = (kind for kind in kinds if any(map(os.path.isfile, _own_files(given, kind))))
    shipped = (kind for kind in kinds if str(given) in shipped_files(kind))
    return find_file(given, next(itertools.chain(having, shipped, kinds)))


def _is_name(given: Path) -> bool:
    return re.fullmatch(r"\w[\w-]{0,99}", str(given)) is not None and not os.path.isfile(given)


def _own_files(given: Path, kind: Kind) -> list[Path]:
    """Where a name may be in the working folder."""
    return [Path(f"{given}{_SUFFIX}"), Path(f"{kind}s") / f"{given}{_SUFFIX}"]
