"""The plan of an ablation: every arm's pipeline validated, before anything starts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jepa_lab.config.checks import pipeline_geometry
from jepa_lab.config.explanations import first_lines
from jepa_lab.config.loading import LoadedPipeline, config_digest, flat_items
from jepa_lab.config.pipeline import Pipeline
from jepa_lab.errors import ConfigProblems, JepaLabError
from jepa_lab.sweeps.ablation import Ablation, AblationFile, Direction, Kind, load_ablation
from jepa_lab.sweeps.base import ended_on_collapse, load_base, with_seed, with_split
from jepa_lab.sweeps.choices import NO_CHOICES, Choices, chosen_drafts, with_choices
from jepa_lab.sweeps.engine import NO_ENGINE_SETTINGS, EngineSettings
from jepa_lab.sweeps.expansion import Draft, baseline_name, draft_arms, swept_sources
from jepa_lab.sweeps.labels import Scalar, label, resolved_value
from jepa_lab.sweeps.objectives import direction_of, missing_metric
from jepa_lab.sweeps.presets import apply_ablation_preset
from jepa_lab.sweeps.references import PlannedReference, references_of
from jepa_lab.sweeps.rules import NEVER_ENDED_EARLY, fixed_key, kind_of, problems_of, refuse_overrides
from jepa_lab.sweeps.search import Search, build_search
from jepa_lab.sweeps.validation import search_problems, validate_arms


@dataclass(frozen=True)
class Arm:
    """One setting that is trained with every seed.

    Attributes:
        overrides: dotted key -> plain YAML value, beyond the base and what all arms have in common.
    """

    name: str
    overrides: Mapping[str, Any]


@dataclass(frozen=True)
class Plan:
    """What an ablation will do.

    Attributes:
        name: of the sweep and of every trial's pipeline.
        arms: the baseline first; for a search the baseline alone.
        baseline: name of the arm that all are compared with.
        seeds: of every arm; for a search of its winner and its baseline.
        split_seeds: of the validation split that each of `seeds` has for itself; None for one split.
        metric: name in result.json. direction: which way it is better.
        retries: attempts after the first that a crashing trial gets.
        swept_keys: every dotted key that an arm or a search changes, in order of appearance.
        notes: sentences for the user and the report.
        pipelines: the validated pipeline of each arm, with the first seed.
        references: encoders from elsewhere; they change no trial, so that the sweep stays the same with others.
    """

    name: str
    kind: Kind
    arms: tuple[Arm, ...]
    baseline: str
    seeds: tuple[int, ...]
    split_seeds: tuple[int, ...] | None
    metric: str
    direction: Direction
    retries: int
    search: Search | None
    swept_keys: tuple[str, ...]
    notes: tuple[str, ...]
    pipelines: Mapping[str, LoadedPipeline]
    references: tuple[PlannedReference, ...] = ()
    engine: EngineSettings = NO_ENGINE_SETTINGS

    def pipeline(self, arm: Arm, seed: int) -> LoadedPipeline:
        """The pipeline of a trial; it has been checked."""
        loaded = with_seed(self.pipelines[arm.name], seed)
        return loaded if self.split_seeds is None else with_split(loaded, self.split_seeds[self.seeds.index(seed)])

    def arm(self, name: str) -> Arm:
        """The arm of this name."""
        return next(arm for arm in self.arms if arm.name == name)

    def pipelines_of_splits(self) -> dict[int, LoadedPipeline]:
        """The baseline with each validation split, by the seed of the split."""
        loaded = (self.pipeline(self.arm(self.baseline), seed) for seed in self.seeds)
        by_split: dict[int, LoadedPipeline] = {}
        for each in loaded:
            by_split.setdefault(each.pipeline.data.split_seed, each)
        return by_split

    def flat_values(self, arm: Arm) -> dict[str, Scalar]:
        """Every swept key with this arm's value, read from its pipeline.

        Lists and components are labels, `multi_block(num_targets=2)`; None where the arm has no such key.
        """
        pipeline = self.pipelines[arm.name].pipeline
        return {key: resolved_value(pipeline, key) for key in self.swept_keys}

    @property
    def num_trials(self) -> int:
        """Trials of a table: arms x seeds."""
        return len(self.arms) * len(self.seeds)

    @property
    def on_gpu(self) -> bool:
        """Whether trials may use a GPU."""
        return any(loaded.pipeline.training.device != "cpu" for loaded in self.pipelines.values())

    @property
    def digest(self) -> str:
        """Hexadecimal digest of all that can change a result, or which trials there are.

        Retries and the budget of a search are not in it: more of them go on with the same sweep.
        """
        record = self.to_record()
        content = {key: record[key] for key in _DIGESTED if key in record}
        content["arms"] = {name: arm["config_digest"] for name, arm in record["arms"].items()}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def folder_name(self) -> str:
        """Name of the folder of the plan's sweep."""
        return f"{self.name}-{self.digest[:8]}"

    def to_record(self) -> dict[str, Any]:
        """The plan as JSON values, for plan.json and for `differences`."""
        fixed = flat_items(self.pipelines[self.baseline].pipeline)
        return {
            "name": self.name,
            "kind": self.kind,
            "metric": self.metric,
            "direction": self.direction,
            "seeds": list(self.seeds),
            # Without any the record stays that of an earlier jepa-lab, whose sweeps are resumed.
            **({} if self.split_seeds is None else {"split_seeds": list(self.split_seeds)}),
            "baseline": self.baseline,
            "baseline_config": {key: value for key, value in fixed.items() if not _is_no_result(key)},
            "arms": {
                arm.name: {
                    "overrides": dict(arm.overrides),
                    "values": self.flat_values(arm),
                    "config_digest": config_digest(self.pipelines[arm.name].pipeline),
                }
                for arm in self.arms
            },
            "search": None if self.search is None else self.search.to_record(),
            "budget": None if self.search is None else self.search.budget.model_dump(mode="json"),
            "retries": self.retries,
            "model": _model_in_words(self.pipelines[self.baseline].pipeline),
        }


def _model_in_words(pipeline: Pipeline) -> str:
    """Such as: encoder 192x6x6 (width x depth x heads) on 8x8 patches of 4 px, predictor 96x4x6."""
    geometry = pipeline_geometry(pipeline)
    return (
        f"encoder {geometry.encoder} (width x depth x heads) on {geometry.grid} patches of "
        f"{pipeline.encoder.patch_size} px, predictor {geometry.predictor}"
    )


_DIGESTED = ("name", "kind", "metric", "direction", "seeds", "split_seeds", "baseline", "search")


def _is_no_result(key: str) -> bool:
    """Keys that tell trials apart, or change no result."""
    return key == "seed" or key.partition(".")[0] == "tracking"


def differences(before: Mapping[str, Any], now: Plan) -> list[str]:
    """What changed since a plan was recorded; empty where its sweep can go on.

    Args:
        before: what `to_record` returned, perhaps read from JSON.
    """
    old, new = _comparable(before), _comparable(json.loads(json.dumps(now.to_record())))
    return [
        f"{key}: {_shown(old, key)} before, {_shown(new, key)} now"
        for key in {**old, **new}
        if old.get(key) != new.get(key) or (key in old) != (key in new)
    ]


def _comparable(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record's content by readable names, without what may change."""
    named = ("name", "kind", "metric", "direction", "seeds", "split_seeds", "baseline")
    flat = {key: record[key] for key in named if key in record}
    flat |= record["baseline_config"]
    for name, arm in record["arms"].items():
        flat[f"arm {name!r}"] = arm["values"]
    search = record["search"] or {}
    flat |= {f"search {key}": value for key, value in search.items() if key != "parameters"}
    flat |= {f"search {key}": value for key, value in search.get("parameters", {}).items()}
    return flat


def _shown(record: Mapping[str, Any], key: str) -> str:
    return json.dumps(record[key], ensure_ascii=False) if key in record else "absent"


def load_plan(
    path: Path, overrides: Sequence[str] = (), preset: str | None = None, choices: Choices = NO_CHOICES
) -> Plan:
    """Read an ablation file and validate every arm, see `plan_ablation`."""
    return plan_ablation(load_ablation(path), overrides, preset, choices)


def plan_ablation(
    given: AblationFile, overrides: Sequence[str] = (), preset: str | None = None, choices: Choices = NO_CHOICES
) -> Plan:
    """Validate every arm of an ablation.

    Args:
        overrides: `key=value` for all arms, after the ablation's own `overrides` and before those of an arm.
        preset: overlay on every arm's pipeline, and fewer seeds.
        choices: in place of what the ablation and the preset say.
    Raises:
        ConfigProblems: all that is wrong.
    """
    preset_file = given if preset is None else apply_ablation_preset(preset, given)
    file = with_choices(choices, preset_file)
    kind = kind_of(file)
    problems = [*problems_of(file, kind), *refuse_overrides(file, kind, tuple(overrides))]
    drafts = draft_arms(file, kind)
    baseline = baseline_name(file.ablation, kind)
    if choices.arms is not None:
        problems += _refuse_arms(kind)
        drafts = drafts if problems else chosen_drafts(drafts, choices.arms, baseline)
    try:
        base = load_base(file, overrides, preset)
    except JepaLabError as error:
        raise ConfigProblems(*first_lines([*problems, *error.lines])) from error
    # Without those that a rule has refused already: they would also be told to equal the baseline.
    sound = [draft for draft in drafts if draft.name == baseline or _may_differ(draft)]
    pipelines, broken = validate_arms(sound, base)
    problems += broken
    references = references_of(file)
    problems += [] if problems else [*_unmeasured(file, pipelines), *_without_a_cut(file, pipelines)]
    search = build_search(file, base) if kind == "search" and not problems else None
    problems += search_problems(search) if search is not None else []
    if problems:
        raise ConfigProblems(*first_lines(problems))
    plan = replace(_plan(file, kind, drafts, pipelines, search), references=references, engine=file.engine)
    return plan if choices.base is None else replace(plan, notes=(*plan.notes, *_notes_on_base(given)))


def _refuse_arms(kind: Kind) -> list[str]:
    """The problem that a search has no arms to choose from."""
    return (
        ["--arms: a search has no arms, its points are chosen while it runs; leave it out"] if kind == "search" else []
    )


def _unmeasured(file: AblationFile, pipelines: Mapping[str, LoadedPipeline]) -> list[str]:
    """The problem that some arm's runs do not have the metric."""
    for name, loaded in pipelines.items():
        missing = missing_metric(file.ablation.metric, loaded.pipeline)
        if missing is not None:
            return [f"{file.place('metric')}: in arm {name!r}, {missing}"]
    return []


def _without_a_cut(file: AblationFile, pipelines: Mapping[str, LoadedPipeline]) -> list[str]:
    """The problem that split seeds would change nothing."""
    for name, loaded in pipelines.items():
        if file.ablation.split_seeds is not None and loaded.pipeline.data.validation_split == "folder":
            return [
                f"{file.place('split_seeds')}: split_seeds choose which training images are the validation split, and "
                f"in arm {name!r} it is a folder (data.validation_split=folder); remove one of the two"
            ]
    return []


def _may_differ(draft: Draft) -> bool:
    return bool(draft.changes) and not any(fixed_key(change.key) for change in draft.changes)


def _plan(
    file: AblationFile,
    kind: Kind,
    drafts: Sequence[Draft],
    pipelines: Mapping[str, LoadedPipeline],
    search: Search | None,
) -> Plan:
    ablation = file.ablation
    return Plan(
        name=file.name,
        kind=kind,
        arms=tuple(Arm(draft.name, {change.key: change.value for change in draft.changes}) for draft in drafts),
        baseline=baseline_name(ablation, kind),
        seeds=ablation.seeds,
        split_seeds=ablation.split_seeds,
        metric=ablation.metric,
        direction=ablation.direction or direction_of(ablation.metric),
        retries=ablation.retries,
        search=search,
        swept_keys=_swept_keys(ablation, kind, drafts),
        notes=(*_notes(ablation.seeds), *_notes_on_ends(kind, pipelines)),
        pipelines={
            name: ended_on_collapse(with_seed(loaded, ablation.seeds[0]), False) for name, loaded in pipelines.items()
        },
    )


def _swept_keys(ablation: Ablation, kind: Kind, drafts: Sequence[Draft]) -> tuple[str, ...]:
    """The keys that differ, in the order of the file: those of a search, or those that some arm here changes."""
    keys = dict.fromkeys(key for _, key, _ in swept_sources(ablation, kind))
    changed = {change.key for draft in drafts for change in draft.changes}
    return tuple(key for key in keys if kind == "search" or key in changed)


def _notes_on_base(given: AblationFile) -> tuple[str, ...]:
    """What another base leaves out."""
    if not given.ablation.base_overrides:
        return ()
    left_out = ", ".join(f"{key}={label(value)}" for key, value in given.ablation.base_overrides.items())
    return (f"--base leaves out base_overrides, which are for {given.ablation.base} alone: {left_out}",)


def _notes(seeds: Sequence[int]) -> tuple[str, ...]:
    if len(seeds) > 1:
        return ()
    return ("one seed: differences cannot be told from noise, so the report has no intervals and no p-values",)


def _notes_on_ends(kind: Kind, pipelines: Mapping[str, LoadedPipeline]) -> tuple[str, ...]:
    """That the base pipeline asks for what no trial of a table does."""
    if not any(loaded.pipeline.training.stop_on_collapse for loaded in pipelines.values()):
        return ()
    also = "the points of the search alone use it" if kind == "search" else "it is off here"
    return (f"training.stop_on_collapse is on in the base, and {also}: {NEVER_ENDED_EARLY}",)
