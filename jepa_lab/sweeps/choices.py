"""What a command line chooses of an ablation: another base, other seeds, another metric, some of its arms."""

from __future__ import annotations

import copy
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jepa_lab.config.yaml_text import shorten
from jepa_lab.errors import ConfigError
from jepa_lab.sweeps.ablation import AblationFile
from jepa_lab.sweeps.expansion import Draft

_MOST_NUMBERS = 10_000
_LONGEST_LIST = 1_000
_NUMBERS = re.compile(r"([0-9]{1,19})(?:-([0-9]{1,19}))?")


@dataclass(frozen=True)
class Choices:
    """What is given beside an ablation; None leaves what its file says.

    Attributes:
        base: pipeline file that takes the place of the file's own, without its `base_overrides`.
        seeds: in place of the file's. A seed that the file has keeps its split seed.
        metric: in place of the file's, in its own direction.
        arms: names of the arms to train, each also several with commas between them; the baseline is always trained.
    """

    base: Path | None = None
    seeds: tuple[int, ...] | None = None
    metric: str | None = None
    arms: tuple[str, ...] | None = None


NO_CHOICES = Choices()


def parse_numbers(text: str, option: str, what: str) -> tuple[int, ...]:
    """`0-4`, `7` or `0,3,5-7` as numbers.

    Args:
        option: that gave the text, for messages. what: the numbers are, such as "seed".
    Raises:
        ConfigError: it is neither, or more numbers than anybody means.
    """
    numbers: list[int] = []
    for part in text.split(","):
        found = _NUMBERS.fullmatch(part.strip())
        if found is None:
            raise ConfigError(
                f"must be numbers and ranges of numbers, as in 0-4 or 0,3,5-7, got {shorten(repr(text))}",
                place=option,
            )
        first, last = int(found[1]), int(found[2] or found[1])
        if last < first:
            raise ConfigError(f"{first}-{last} runs backwards; write {last}-{first}", place=option)
        if len(numbers) + last - first >= _MOST_NUMBERS:
            raise ConfigError(f"{text} is more than {_MOST_NUMBERS:,} {what}s; give fewer", place=option)
        if last >= 2**63:
            raise ConfigError(f"a {what} must be below 2^63, got {last}", place=option)
        numbers += range(first, last + 1)
    return tuple(numbers)


def with_choices(choices: Choices, file: AblationFile) -> AblationFile:
    """The ablation as it is with everything chosen but the arms; messages about it name the options.

    Raises:
        ConfigError: the base is no file, or it is not known which split a new seed is to have.
    """
    update: dict[str, Any] = {}
    if choices.base is not None:
        update |= {"base": _base(choices.base), "base_overrides": {}}
    if choices.seeds is not None:
        update |= {"seeds": choices.seeds, "split_seeds": _split_seeds(file, choices.seeds)}
    if choices.metric is not None:
        direction = file.ablation.direction if choices.metric == file.ablation.metric else None
        update |= {"metric": choices.metric, "direction": direction}
    document = copy.deepcopy(file.document)
    for key in ("base", "seeds", "metric"):
        if key in update:
            document.mark((key,), f"--{key}")
    return replace(file, ablation=file.ablation.model_copy(update=update), document=document)


def _base(path: Path) -> str:
    if not path.is_file():
        raise ConfigError(
            f"{path} is not a file; give a pipeline file, or the name of a pipeline that comes with jepa-lab, as in "
            "--base cifar10",
            place="--base",
        )
    return str(path.absolute())


def _split_seeds(file: AblationFile, seeds: Sequence[int]) -> tuple[int, ...] | None:
    """Of the seeds that are chosen, where each seed of the file has a validation split of its own."""
    splits = file.ablation.split_seeds
    if splits is None or len(splits) != len(file.ablation.seeds):  # a rule of rules.py
        return splits
    known = dict(zip(file.ablation.seeds, splits, strict=True))
    new = [seed for seed in seeds if seed not in known]
    if new:
        raise ConfigError(
            f"{', '.join(map(str, new))} has no split seed in {file.place('split_seeds')}; choose among "
            f"{', '.join(map(str, known))}, or give seeds and split_seeds in the file",
            place="--seeds",
        )
    return tuple(known[seed] for seed in seeds)


def chosen_drafts(drafts: Sequence[Draft], texts: Sequence[str], baseline: str) -> list[Draft]:
    """The arms of these names, and the baseline.

    Raises:
        ConfigError: an arm that there is not.
    """
    known = [draft.name for draft in drafts]
    names = {baseline, *names_in(texts, known, "--arms")}
    if len(names) < 2:
        others = ", ".join(name for name in known if name != baseline)
        raise ConfigError(
            f"{baseline!r} is the baseline, which is trained in any case; add an arm to compare with it: {others}",
            place="--arms",
        )
    return [draft for draft in drafts if draft.name in names]


def names_in(texts: Iterable[str], known: Collection[str], option: str) -> set[str]:
    """The names of arms in texts, each with perhaps several.

    Raises:
        ConfigError: an arm that there is not.
    """
    return {name for text in texts for name in _names(text, known, option)}


def _names(text: str, known: Collection[str], option: str) -> Iterator[str]:
    """The names in a text, with commas between them. Names may have commas, too: the longest that fits counts."""
    pieces, start = text.split(","), 0
    while start < len(pieces):
        ends = range(len(pieces), start, -1)
        end = next((end for end in ends if ",".join(pieces[start:end]).strip() in known), None)
        if end is None:
            name = pieces[start].strip()
            arms = shorten(", ".join(map(repr, known)), _LONGEST_LIST)
            raise ConfigError(f"there is no arm {shorten(repr(name))}; the arms are {arms}", place=option)
        yield ",".join(pieces[start:end]).strip()
        start = end
