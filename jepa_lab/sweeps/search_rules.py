"""Rules of the searches among ablations, and of lists of values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jepa_lab.config.yaml_text import shorten
from jepa_lab.registry import did_you_mean
from jepa_lab.sweeps.ablation import SEARCH_KEYS, AblationFile, Kind
from jepa_lab.sweeps.labels import label

Problems = Iterator[str]


def check_search(file: AblationFile, kind: Kind) -> Problems:
    """What a search needs, and what means nothing without one."""
    ablation = file.ablation
    if kind != "search":
        for key in SEARCH_KEYS:
            if key in ablation.model_fields_set and getattr(ablation, key) is not None:
                why = "arms of a table are never pruned" if key == "pruner" else f"this is a table of {kind}"
                yield f"{file.place(key)}: {key} belongs to search, and {why}; remove it"
        return
    if ablation.budget is None:
        yield f"{file.place('search')}: a search needs a budget; add budget: {{trials: 30}} or {{hours: 2}}"
    if ablation.pruner is not None and not ablation.metric.startswith("probe/"):
        yield (
            f"{file.place('pruner')}: a pruner judges by the online probe, and the metric is {ablation.metric!r}; "
            "remove pruner, or use probe/validation_accuracy"
        )
    for key, parameter in ablation.search.items():
        yield from twice(file, ("search", key, "choices"), parameter.choices or ())
        yield from _check_conditions(file, key, parameter.when)


def _check_conditions(file: AblationFile, key: str, when: Mapping[str, Any]) -> Problems:
    ablation, place = file.ablation, file.place("search", key, "when")
    if when and ablation.sampler not in ("tpe", "random"):
        yield (
            f"{place}: {key} exists only under `when`, which the sampler {ablation.sampler!r} cannot do; "
            "use sampler: tpe or random, or remove when"
        )
    earlier = list(ablation.search)[: list(ablation.search).index(key)]
    for other, value in when.items():
        if other not in earlier or ablation.search[other].type != "categorical":
            known = [each for each in earlier if ablation.search[each].type == "categorical"]
            hint = did_you_mean(other, known)
            yield f"{place}: when names {other}, which is not a categorical key before {key}{hint}"
        elif label(value) not in map(label, ablation.search[other].choices or ()):
            choices = shown(list(ablation.search[other].choices or ()))
            yield f"{place}: when has {other}: {label(value)}, which is none of its choices; write one of {choices}"


def twice(file: AblationFile, source: tuple[str, ...], values: Sequence[Any]) -> Problems:
    """Values that a list has more than once.

    Args:
        source: path of the list in the file, the key second.
    """
    labels = [label(value) for value in values]
    for index, value in enumerate(values):
        if labels[index] in labels[:index] or value in values[:index]:
            yield f"{file.place(*source, index)}: {source[1]} has the value {labels[index]} twice; remove one"


def shown(values: Sequence[Any]) -> str:
    """Values as labels, for a message."""
    return shorten(", ".join(map(label, values)), 200)
