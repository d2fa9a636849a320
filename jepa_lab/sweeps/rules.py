"""Rules of an ablation file that its schema cannot say; each finds the problems of one kind."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, get_args

from pydantic.fields import FieldInfo

from jepa_lab.config.documents import parse_override, place_of_override
from jepa_lab.config.fields import section_of
from jepa_lab.config.pipeline import Pipeline
from jepa_lab.config.yaml_text import shorten
from jepa_lab.errors import ConfigError
from jepa_lab.registry import did_you_mean
from jepa_lab.sweeps.ablation import Ablation, AblationFile, Kind
from jepa_lab.sweeps.base import path_of
from jepa_lab.sweeps.expansion import count_arms, kinds_of, matching_value, swept_sources
from jepa_lab.sweeps.labels import MAX_NAME, label
from jepa_lab.sweeps.objectives import refuse_objective
from jepa_lab.sweeps.search_rules import Problems, check_search, shown, twice

MAX_TRIALS = 10_000

NEVER_ENDED_EARLY = (
    "what enters a table is trained to the end, collapsed or not, since that is what an arm does; "
    "a point of a search is ended when it collapses"
)
_UNSWEPT = {
    "seed": "the seeds of every arm stand under seeds",
    "name": "runs are named after the ablation",
    "plugins": "name them for all arms, under overrides or in the base",
    "tracking": "it changes no result; set it for all arms, under overrides",
    "data.split_seed": "arms are paired by seed on the same validation images; set it for all arms, under overrides, "
    "or give each seed its own under split_seeds",
    "training.stop_on_collapse": NEVER_ENDED_EARLY,
}
"""Keys that no arm may change, and why."""
_SET_BY_THE_SWEEP = ("seed", "name", "training.stop_on_collapse")
"""Those among them that cannot be set for all arms either."""
_OPTIONS = {"base", "seeds", "metric", "arms"}
"""Keys of an ablation that are options of the command line, too."""
_FOR_ALL = ("base_overrides", "overrides")
"""Keys of an ablation whose changes are the same in every arm, in the order in which they are written."""


def kind_of(file: AblationFile) -> Kind:
    """The one way that the ablation is written.

    Raises:
        ConfigError: none, several, or more trials than anybody runs.
    """
    ablation, kinds = file.ablation, kinds_of(file.ablation)
    if len(kinds) != 1:
        place = file.place(kinds[1]) if kinds else file.place()
        raise ConfigError(
            "an ablation needs exactly one of arms, grid, one_at_a_time and search with something in it, "
            f"got {' and '.join(kinds) or 'none'}; {'remove all but one' if kinds else 'add one'}",
            place=place,
        )
    num_trials = count_arms(ablation, kinds[0]) * len(ablation.seeds)
    if num_trials > MAX_TRIALS:
        raise ConfigError(
            f"{kinds[0]} gives {count_arms(ablation, kinds[0]):,} arms and {len(ablation.seeds)} seeds, that is "
            f"{num_trials:,} trials, and at most {MAX_TRIALS:,} are possible; remove values, or use one_at_a_time or "
            "search",
            place=file.place(kinds[0]),
        )
    return kinds[0]


def problems_of(file: AblationFile, kind: Kind) -> list[str]:
    """Every broken rule, as place and sentence."""
    return [problem for rule in _RULES for problem in rule(file, kind)]


def refuse_overrides(file: AblationFile, kind: Kind, overrides: tuple[str, ...]) -> Problems:
    """Overrides of the command line are for all arms: they cannot be about what differs between arms."""
    swept = dict.fromkeys(key for _, key, _ in swept_sources(file.ablation, kind))
    for text in overrides:
        path, place = parse_override(text)[0], place_of_override(text)
        key = ".".join(map(str, path))
        touched = next((each for each in swept if _touch(path, path_of(each))), None)
        if key == "training.stop_on_collapse":
            yield f"{place}: {key} cannot be set for all arms: {_UNSWEPT[key]}; remove it"
        elif key in _SET_BY_THE_SWEEP:
            yield f"{place}: {key} cannot be set for all arms: {_UNSWEPT[key]}; change the ablation file"
        elif path[0] in Ablation.model_fields and path[0] not in Pipeline.model_fields:
            option = f", or give --{path[0]}" if path[0] in _OPTIONS else ""
            yield f"{place}: {path[0]} is a key of the ablation, not of its pipelines; change it in {file.path}{option}"
        elif touched is not None:
            yield (
                f"{place}: {key} would be for all arms, but {touched} is what this ablation changes "
                f"({file.place(*_source_of(file, kind, touched))}); change it in the ablation file"
            )


def fixed_key(key: str) -> str | None:
    """The key among those that no arm may change that a dotted key is or lies in."""
    return next((each for each in _UNSWEPT if path_of(key)[: len(path_of(each))] == path_of(each)), None)


def _source_of(file: AblationFile, kind: Kind, key: str) -> tuple[str | int, ...]:
    return next(source for source, each, _ in swept_sources(file.ablation, kind) if each == key)


def _touch(first: tuple[str | int, ...], second: tuple[str | int, ...]) -> bool:
    """Whether one key is the other, or lies inside it."""
    common = min(len(first), len(second))
    return first[:common] == second[:common]


def _check_seeds(file: AblationFile, kind: Kind) -> Problems:
    if not file.ablation.seeds:
        yield f"{file.place('seeds')}: seeds is empty; give some, as in seeds: [0, 1, 2, 3, 4]"
    for seed, count in Counter(file.ablation.seeds).items():
        if count > 1:
            yield f"{file.place('seeds')}: seeds has {seed} {count} times, and a seed counts once; remove it"


def _check_split_seeds(file: AblationFile, kind: Kind) -> Problems:
    splits, seeds, place = file.ablation.split_seeds, file.ablation.seeds, file.place("split_seeds")
    if splits is None:
        return
    if kind == "search":
        yield (
            f"{place}: split_seeds are for tables; a search compares its winner on the test split, with fresh seeds; "
            "remove them"
        )
    elif len(splits) != len(seeds):
        yield (
            f"{place}: split_seeds needs one split for each of the {len(seeds)} seeds, got {len(splits)}; "
            f"as in split_seeds: {list(range(len(seeds)))}"
        )
    for split, count in Counter(splits).items():
        if count > 1:
            yield (
                f"{place}: split_seeds has {split} {count} times, and images that two seeds share are no second "
                "sample; give each seed its own, or leave split_seeds out for one split"
            )


def _check_metric(file: AblationFile, kind: Kind) -> Problems:
    refused = refuse_objective(file.ablation.metric)
    if refused is not None:
        yield f"{file.place('metric')}: {refused}"


def _check_references(file: AblationFile, kind: Kind) -> Problems:
    references = file.ablation.references
    if references and not file.ablation.metric.startswith("probe/"):
        yield (
            f"{file.place('references')}: references are probed, and {file.ablation.metric!r} is not a number of a "
            "probe; leave them out, or use a metric such as probe/validation_accuracy"
        )
    for index, source in enumerate(references):
        if source in references[:index]:
            yield f"{file.place('references', index)}: references has {source!r} twice; remove one"


def _check_baseline(file: AblationFile, kind: Kind) -> Problems:
    yield from _BASELINES[kind](file)


def _baseline_of_arms(file: AblationFile) -> Problems:
    given, names = file.ablation.baseline, list(file.ablation.arms)
    if given is None:
        yield f"{file.place('arms')}: there is no baseline; name the arm to compare with, as in baseline: {names[0]}"
    elif not isinstance(given, str):
        yield f"{file.place('baseline')}: baseline must be the name of an arm, got {_short(given)}; write one of them"
    elif given not in names:
        yield f"{file.place('baseline')}: baseline {given!r} is none of the arms{did_you_mean(given, names)}"


def _baseline_of_grid(file: AblationFile) -> Problems:
    given, grid = file.ablation.baseline, file.ablation.grid
    if not isinstance(given, Mapping):
        example = ", ".join(f"{key}: {label(values[0])}" for key, values in grid.items() if values)
        problem = "there is no baseline" if given is None else f"baseline must be a cell, got {_short(given)}"
        yield f"{file.place('grid' if given is None else 'baseline')}: {problem}; name one: baseline: {{{example}}}"
        return
    unknown = [key for key in given if key not in grid]
    for key in unknown:
        yield f"{file.place('baseline', key)}: baseline has {key}, which is not a key of grid{did_you_mean(key, grid)}"
    for key, values in grid.items():
        if unknown or not values:
            continue
        if key not in given:
            yield f"{file.place('baseline')}: baseline has no value for {key}; add one of {shown(values)}"
        elif not any(matching_value(given[key], [value]) == value for value in values):
            yield (
                f"{file.place('baseline', key)}: baseline has {key}: {label(given[key])}, which is none of its values; "
                f"choose one of {shown(values)}"
            )


def _no_baseline(file: AblationFile) -> Problems:
    if file.ablation.baseline is not None:
        yield f"{file.place('baseline')}: baseline is the base with its overrides here; remove the key"


_BASELINES: dict[Kind, Callable[[AblationFile], Problems]] = {
    "arms": _baseline_of_arms,
    "grid": _baseline_of_grid,
    "one_at_a_time": _no_baseline,
    "search": _no_baseline,
}


def _check_arms(file: AblationFile, kind: Kind) -> Problems:
    baseline = file.ablation.baseline
    has_baseline = isinstance(baseline, str) and baseline in file.ablation.arms  # if not, that is told alone
    for name, overrides in file.ablation.arms.items():
        place = file.place("arms", name)
        if not name.strip() or name != name.strip() or len(name) > MAX_NAME or not _is_plain(name):
            yield (
                f"{place}: the name of an arm must be 1 to {MAX_NAME} characters without control characters or blanks "
                f"around it, got {_short(name)}; rename it"
            )
        if not overrides and has_baseline and name != baseline:
            yield f"{place}: arm {name!r} changes nothing; add what it changes, or remove it"


def _is_plain(name: str) -> bool:
    """Nothing that moves a terminal's cursor, ends a line or reorders the text around it."""
    reordering = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
    return not any(
        unicodedata.category(letter) in ("Cc", "Cs", "Zl", "Zp") or unicodedata.bidirectional(letter) in reordering
        for letter in name
    )


def _check_values(file: AblationFile, kind: Kind) -> Problems:
    for factors in ("grid", "one_at_a_time"):
        for key, values in getattr(file.ablation, factors).items():
            if not values:
                yield f"{file.place(factors, key)}: {factors}.{key} has no values; add some, or remove the key"
            yield from twice(file, (factors, key), values)


def _check_swept_keys(file: AblationFile, kind: Kind) -> Problems:
    for source, key, _ in swept_sources(file.ablation, kind):
        fixed = fixed_key(key)
        if fixed is not None:
            yield f"{file.place(*source)}: {key} cannot differ between arms: {_UNSWEPT[fixed]}"
    for section in _FOR_ALL:
        for key in _SET_BY_THE_SWEEP:
            if key in getattr(file.ablation, section):
                yield f"{file.place(section, key)}: {key} cannot be set for all arms: {_UNSWEPT[key]}; remove it"


def _check_sections(file: AblationFile, kind: Kind) -> Problems:
    common = (
        ((section, key), key, value) for section in _FOR_ALL for key, value in getattr(file.ablation, section).items()
    )
    for source, key, value in [*common, *swept_sources(file.ablation, kind)]:
        if isinstance(value, Mapping) and _is_section(key):
            inner = next(iter(value), "KEY")
            yield (
                f"{file.place(*source)}: {key} is a section, and a mapping would reset its other keys; "
                f"write {key}.{inner}: {label(value.get(inner))}"
            )


def _is_section(key: str) -> bool:
    """Whether a dotted key is a section of the pipeline that always exists."""
    model, field = Pipeline, None
    for step in key.split("."):
        field = model.model_fields.get(step) if model is not None else None
        model = section_of(field) if field is not None else None  # type: ignore[assignment]
    return model is not None and field is not None and not _may_be_null(field)


def _may_be_null(field: FieldInfo) -> bool:
    return type(None) in get_args(field.annotation)


def _check_order(file: AblationFile, kind: Kind) -> Problems:
    """Changes are written in their order: a component written after one of its parameters would wipe that out."""
    ablation = file.ablation
    groups: list[tuple[tuple[str, ...], list[str]]] = [
        (("base_overrides",), list(ablation.base_overrides)),
        (("overrides",), list(ablation.overrides)),
        (("grid",), list(ablation.grid)),
        (("search",), list(ablation.search)),
        *((("arms", name), list(overrides or {})) for name, overrides in ablation.arms.items()),
    ]
    for source, keys in groups:
        for number, key in enumerate(keys):
            inner = [each for each in keys[:number] if path_of(each)[: len(path_of(key))] == path_of(key)]
            if inner:
                yield f"{file.place(*source, key)}: {key} would overwrite {inner[0]} before it; put {key} first"
    for section in _FOR_ALL:
        for key in getattr(ablation, section):
            above = [each for each in ablation.grid if path_of(key)[: len(path_of(each))] == path_of(each)]
            if above:
                yield (
                    f"{file.place(section, key)}: {key} has no effect: grid sets {above[0]} in every arm; remove one, "
                    "or give a parameter with each component, as in {name: multi_block, num_targets: 2}"
                )


_RULES: tuple[Callable[[AblationFile, Kind], Problems], ...] = (
    _check_seeds,
    _check_split_seeds,
    _check_metric,
    _check_references,
    _check_baseline,
    _check_arms,
    _check_values,
    _check_swept_keys,
    _check_sections,
    _check_order,
    check_search,
)


def _short(value: Any) -> str:
    return shorten(repr(value))
