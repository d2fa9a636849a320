"""A quick question: a pipeline file and several values of some keys are a grid, and an ablation file that says it.

`jepa-lab sweep cifar10 masker=multi_block,random predictor.size=quarter,half` is written as Hydra's users write it.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jepa_lab.config.documents import Document, dump_yaml, load_document, parse_override, place_of_override
from jepa_lab.config.pipeline import Pipeline
from jepa_lab.config.shipped import shipped_files
from jepa_lab.config.yaml_text import read_yaml
from jepa_lab.errors import ConfigError, printable
from jepa_lab.sweeps.ablation import Ablation, AblationFile, ablation_of
from jepa_lab.sweeps.base import path_of
from jepa_lab.sweeps.choices import Choices
from jepa_lab.tracking.credentials import scrub

_OPENING, _CLOSING = "[{(", "]})"
_LONGEST_NAME = 80


def is_pipeline(file: Path) -> bool:
    """Whether a file is a pipeline and no ablation; what cannot be read, or only once, is left to whoever reads it.

    Raises:
        ConfigError: it is no YAML file.
    """
    if not file.is_file():
        return False
    keys = load_document(file).data.keys()
    return "base" not in keys and any(key in Pipeline.model_fields.keys() - Ablation.model_fields for key in keys)


@dataclass(frozen=True)
class QuickGrid:
    """A question that is asked without an ablation file.

    Attributes:
        ablation: what it stands for.
        given: the arguments beside the pipeline, as for a command. single: the overrides that hold for every arm.
    """

    ablation: AblationFile
    pipeline: Path
    given: tuple[str, ...]
    single: tuple[str, ...]

    def text(self, folder: Path, preset: str | None = None) -> str:
        """The ablation file.

        Args:
            folder: that it will be in. preset: which is named in the command that it stands for.
        """
        data = {key: value for key, value in self.ablation.document.data.items() if value != {}}
        data["base"] = _seen_from(folder, self.pipeline)
        hidden = [key for key in data.get("overrides", {}) if _has_credentials(data["overrides"][key])]
        data["overrides"] = {key: value for key, value in data.get("overrides", {}).items() if key not in hidden}
        options = [] if preset is None else ["--preset", preset]
        command = shlex.join(["jepa-lab", "sweep", _as_typed(self.pipeline), *map(scrub, self.given), *options])
        lines = [
            "# Written by `jepa-lab sweep`, which resumes the sweep when it is given this file.",
            f"# It stands for: {printable(command)}",
            *(f"# {key} is left out, because it holds credentials; give it again." for key in hidden),
        ]
        return "\n".join([*lines, dump_yaml({key: value for key, value in data.items() if value != {}})])


def quick_grid(pipeline: Path, overrides: Sequence[str], choices: Choices) -> QuickGrid:
    """The grid of a pipeline file and overrides, of which some have several values with commas between them.

    The first value of each key is the baseline. Overrides with one value hold for every arm; `name=...` names the
    sweep.

    Raises:
        ConfigError: no key has several values, or something cannot be meant.
    """
    _refuse_choices(choices)
    written = [_Override.of(text) for text in overrides]
    swept, single = (
        [each for each in written if len(each.values) > 1],
        [each for each in written if len(each.values) == 1],
    )
    if not swept:
        raise ConfigError(
            f"{_as_typed(pipeline)} is a pipeline, and no key has several values to compare; give some, as in "
            f"masker=multi_block,random, or train it once with `jepa-lab run {_as_typed(pipeline)}`"
        )
    _refuse_what_cannot_be_meant(swept, single)
    names = [each.values[0] for each in single if each.key == "name"]
    single = [each for each in single if each.key != "name"]
    data: dict[str, Any] = {
        "name": names[-1] if names else _name(pipeline, [each.key for each in swept]),
        "base": str(pipeline.absolute()),
        "overrides": {each.key: each.values[0] for each in single},
        "baseline": {each.key: each.values[0] for each in swept},
        "grid": {each.key: each.values for each in swept},
        "seeds": list(Ablation.model_fields["seeds"].default if choices.seeds is None else choices.seeds),
        "metric": choices.metric or Ablation.model_fields["metric"].default,
    }
    ablation = ablation_of(Document(data, _places(written), str(pipeline)), pipeline)
    options = [] if choices.seeds is None else ["--seeds", ",".join(map(str, choices.seeds))]
    options += [] if choices.metric is None else ["--metric", choices.metric]
    return QuickGrid(ablation, pipeline, (*overrides, *options), tuple(each.text for each in single))


@dataclass(frozen=True)
class _Override:
    """An override with its values.

    Attributes:
        key: dotted. values: plain YAML, one or several.
    """

    text: str
    key: str
    values: list[Any]

    @classmethod
    def of(cls, text: str) -> _Override:
        key, equals, given = text.partition("=")
        parts, place = split_values(given), place_of_override(text)
        if len(parts) == 1:
            path, value = parse_override(text)
            return cls(text, ".".join(map(str, path)), [value])
        path = parse_override(f"{key}{equals}")[0]
        if not all(part.strip() for part in parts):
            raise ConfigError("has an empty value between its commas; remove a comma, or quote the value", place=place)
        values = [read_yaml(part, place, path, lines=False)[0] for part in parts]
        return cls(text, ".".join(map(str, path)), values)

    @property
    def place(self) -> str:
        return place_of_override(self.text)


def split_values(text: str) -> list[str]:
    """A text at its commas, but for those in brackets, braces and quotes.

    As in YAML, a quote begins where a value may begin, so that it may stand within a word: o'clock.
    """
    parts, depth, quote, before = [""], 0, "", ""  # before: the last letter that is no blank, outside quotes
    for place, letter in enumerate(text):
        if quote:
            quote = "" if letter == quote and not (quote == '"' and text[place - 1] == "\\") else quote
        elif letter in "'\"" and (before in ("", *_OPENING, ",", ":") or text[place - 1] == letter == "'"):
            quote = letter  # or a doubled one, which is one within its quotes
        elif letter == "," and depth <= 0:
            parts.append("")
            before = ""
            continue
        depth += (letter in _OPENING) - (letter in _CLOSING) if not quote else 0
        parts[-1] += letter
        before = before if letter == " " else letter
    return parts


def _refuse_choices(choices: Choices) -> None:
    for option, value, instead in (
        ("base", choices.base, "FILE is the base"),
        ("arms", choices.arms, "the values say which arms there are"),
    ):
        if value is not None:
            raise ConfigError(
                f"belongs to an ablation FILE; of a pipeline {instead}; leave it out", place=f"--{option}"
            )


def _refuse_what_cannot_be_meant(swept: Sequence[_Override], single: Sequence[_Override]) -> None:
    """Keys that are none of a pipeline's, or that say the same thing twice."""
    for each in [*swept, *single]:
        first = each.key.partition(".")[0]
        if each.key == "seed":
            raise ConfigError(f"the seeds of every arm are an option: give --seeds {_shown(each)}", place=each.place)
        if each.key == "name" and each in swept:
            raise ConfigError("a sweep has one name; give one", place=each.place)
        if first in Ablation.model_fields and first not in Pipeline.model_fields:
            option = f"; give --{first}" if first in ("seeds", "metric") else "; write an ablation file for that"
            raise ConfigError(f"{first} is not a key of a pipeline{option}", place=each.place)
    for index, each in enumerate(swept):
        if each.key in {other.key for other in [*swept[:index], *single]}:
            raise ConfigError(f"{each.key} is given twice; give all of its values at once", place=each.place)
    for each in single:
        outer = next((other for other in swept if _lies_in(each.key, other.key)), None)
        if outer is not None:
            raise ConfigError(
                f"{each.key} goes into {outer.key}, which has several values here; give it with each of them, as in "
                f"{outer.key}='{{name: multi_block, num_targets: 2}},random'",
                place=each.place,
            )


def _lies_in(inner: str, outer: str) -> bool:
    return path_of(inner)[: len(path_of(outer))] == path_of(outer)


def _shown(override: _Override) -> str:
    return ",".join(map(str, override.values))


def _places(written: Sequence[_Override]) -> dict[tuple[str | int, ...], str]:
    """Where everything in the ablation was written: in an override."""

    def found() -> Iterator[tuple[tuple[str | int, ...], str]]:
        for each in written:
            if each.key == "name":
                yield ("name",), each.place
            elif len(each.values) == 1:
                yield ("overrides", each.key), each.place
            else:
                yield ("grid", each.key), each.place
                yield ("baseline", each.key), each.place
                yield from ((("grid", each.key, index), each.place) for index in range(len(each.values)))

    return dict(found())


def _name(pipeline: Path, keys: Sequence[str]) -> str:
    """Such as cifar10-masker-predictor.size; legal as the name of a sweep, whatever the file is called."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", "-".join([pipeline.stem, *keys]))
    return re.sub(r"^[^A-Za-z0-9]+", "", name)[:_LONGEST_NAME] or "grid"


def _seen_from(folder: Path, pipeline: Path) -> str:
    """The pipeline in a file of this folder: by its name where it comes with jepa-lab; relative within one project."""
    here, place = Path.cwd().resolve(), pipeline.resolve()
    if not place.is_relative_to(here):
        return pipeline.stem if _comes_with_us(pipeline) else str(pipeline.absolute())
    if not folder.resolve().is_relative_to(here):
        return str(pipeline.absolute())
    return os.path.relpath(place, folder.resolve())


def _as_typed(pipeline: Path) -> str:
    """The pipeline in a command: by its name where it comes with jepa-lab, whose own folder is nobody's business."""
    return pipeline.stem if _comes_with_us(pipeline) else str(pipeline)


def _comes_with_us(pipeline: Path) -> bool:
    own = shipped_files("pipeline").get(pipeline.stem)
    return own is not None and own.samefile(pipeline)


def _has_credentials(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_credentials, value.values()))
    return isinstance(value, str) and scrub(value) != value
