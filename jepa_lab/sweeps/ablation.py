"""The schema of an ablation file: one baseline, what is changed beside it, seeds and a metric."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, WithJsonSchema, model_validator

from jepa_lab.config.documents import Document, load_document
from jepa_lab.config.explanations import explain_all
from jepa_lab.config.loading import load_plugins
from jepa_lab.config.pipeline import rebuild_schema
from jepa_lab.errors import ConfigError, ConfigProblems
from jepa_lab.registry import ComponentParams, broken_rule
from jepa_lab.sweeps.engine import LOCAL, EngineSettings, ExecutorField
from jepa_lab.sweeps.resources import Resources

Kind = Literal["arms", "grid", "one_at_a_time", "search"]
KINDS: tuple[Kind, ...] = ("arms", "grid", "one_at_a_time", "search")
Direction = Literal["maximize", "minimize"]
SamplerName = Literal["tpe", "random", "qmc", "gp"]
PrunerName = Literal["median", "hyperband"]

Overrides = dict[str, Any]
"""Dotted key of the pipeline -> value, as on the command line: `masker: random` replaces the whole component,
`masker.num_targets: 2` changes one of its parameters."""

Baseline = Annotated[Any, WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "object"}, {"type": "null"}]})]


class Parameter(ComponentParams):
    """One key of a search and the values it may take."""

    type: Literal["float", "int", "categorical"] = Field(description="Kind of the values.")
    low: float | None = Field(None, description="Smallest value of a float or int.")
    high: float | None = Field(None, description="Largest value of a float or int.")
    log: bool = Field(False, strict=True, description="Search a float or int on a logarithmic scale.")
    step: float | None = Field(None, gt=0, description="Distance between two values; not with log.")
    choices: tuple[Any, ...] | None = Field(
        None, min_length=1, description="Values of a categorical: scalars, lists, or components such as multi_block."
    )
    when: dict[str, Any] = Field(
        {}, description="Search this key only where these categorical keys, listed before it, have these values."
    )

    @model_validator(mode="after")
    def _check(self) -> Parameter:
        if self.type == "categorical":
            self._check_categorical()
        else:
            self._check_range()
        return self

    def _check_categorical(self) -> None:
        given = {"low", "high", "log", "step"} & self.model_fields_set
        if given:
            raise broken_rule(
                f"a categorical has choices, not {', '.join(sorted(given))}; remove those", keys=sorted(given)
            )
        if self.choices is None:
            raise broken_rule(
                "choices are missing; a categorical needs them, as in choices: [pad, subset]", keys=["type"]
            )

    def _check_range(self) -> None:
        if self.choices is not None:
            raise broken_rule(
                f"choices belong to type: categorical, this type is {self.type}; change one of them",
                keys=["choices", "type"],
            )
        low, high = self.low, self.high
        if low is None or high is None:
            raise broken_rule(
                f"low and high are both needed for type: {self.type}; add them", keys=["low", "high", "type"]
            )
        if low >= high:
            raise broken_rule(
                f"low must be below high, got {low:g} and {high:g}; swap or widen them", keys=["low", "high"]
            )
        if self.type == "int" and not all(each is None or each.is_integer() for each in (low, high, self.step)):
            raise broken_rule(
                "low, high and step of type: int must be integers; use type: float for others",
                keys=["low", "high", "step", "type"],
            )
        if self.log and low <= 0:
            raise broken_rule(
                f"low must be above 0 on a logarithmic scale, got {low:g}; raise it or remove log", keys=["low", "log"]
            )
        if self.log and self.step is not None:
            raise broken_rule("step and log exclude each other; remove one", keys=["step", "log"])
        if self.step is not None and (Decimal(str(high)) - Decimal(str(low))) % Decimal(str(self.step)):
            raise broken_rule(
                f"step must divide high - low, got {self.step:g} for {low:g} to {high:g}; change one",
                keys=["step", "low", "high"],
            )


class Budget(ComponentParams):
    """How long a search lasts."""

    trials: int | None = Field(None, ge=1, le=10_000, strict=True, description="Trials; give this or hours.")
    hours: float | None = Field(
        None, gt=0, le=10_000, description="Hours after which no trial is begun; give this or trials."
    )

    @model_validator(mode="after")
    def _check(self) -> Budget:
        if (self.trials is None) == (self.hours is None):
            raise broken_rule("give exactly one of trials and hours, as in {trials: 30}", keys=["trials", "hours"])
        return self


class Ablation(ComponentParams):
    """One ablation: a base pipeline, and exactly one of arms, grid, one_at_a_time and search."""

    name: str | None = Field(
        None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        max_length=80,
        description="Name of the sweep and of its runs: letters, digits, dot, dash, underscore; null takes the "
        "name of this file.",
    )
    base: str = Field(
        min_length=1,
        description="Pipeline file that everything is a change of, seen from this file; or the name of a pipeline that "
        "comes with jepa-lab.",
    )
    base_overrides: Overrides = Field(
        {},
        description="Changes to this base alone, before `overrides`, such as a smaller patch size for small images; "
        "`jepa-lab sweep --base` leaves them out.",
    )
    overrides: Overrides = Field(
        {}, description="Changes to the base for all arms: dotted keys and values, as in training.epochs: 50."
    )
    baseline: Baseline = Field(
        None,
        description="What every arm is compared with: with arms the name of one, with grid the cell's value of every "
        "key. One_at_a_time and search compare with the base and its overrides, and leave this out.",
    )
    arms: dict[str, Overrides | None] = Field({}, description="Name of an arm -> its changes, beside `overrides`.")
    grid: dict[str, list[Any]] = Field({}, description="Key -> values; every combination is an arm.")
    one_at_a_time: dict[str, list[Any]] = Field(
        {}, description="Key -> values; each value is an arm that changes this key alone."
    )
    search: dict[str, Parameter] = Field({}, description="Key -> the values it may take; Optuna chooses points.")
    sampler: SamplerName = Field(
        "tpe", description="Who chooses the points of a search; parameters with `when` need tpe or random."
    )
    sampler_seed: int = Field(0, ge=0, lt=2**32, strict=True, description="Seed of the sampler of a search.")
    budget: Budget | None = Field(None, description="Length of a search.")
    pruner: PrunerName | None = Field(
        None,
        description="Ends weak trials of a search early, by the online probe; null lets all finish. What enters a "
        "table is never pruned.",
    )
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**63, strict=True)], ...] = Field(
        (0, 1, 2, 3, 4),
        json_schema_extra={"minItems": 1},  # a rule of rules.py: pydantic counts only the valid ones
        description="Seeds of every arm, the same for all: arms are paired by seed. In a search the winner and the "
        "baseline are trained again with as many fresh ones.",
    )
    split_seeds: tuple[Annotated[int, Field(ge=0, lt=2**63, strict=True)], ...] | None = Field(
        None,
        description="Seeds of the validation split, one for each of `seeds` in their order: the runs of the first seed "
        "are trained and scored on the first split, in every arm. The test split stays the same. Null: one validation "
        "split (data.split_seed) for all; not for a search.",
    )
    references: tuple[Annotated[str, Field(min_length=1)], ...] = Field(
        (),
        description="Encoders from elsewhere that stand in the table beside the controls, each probed once per "
        "validation split as the baseline is: run folders, exports, models:/..., released checkpoints, folders of timm "
        "or transformers; paths as seen from this file.",
    )
    metric: str = Field(
        "probe/validation_accuracy",
        description="Number of a run's result that arms are compared by; never one of the test split or a control.",
    )
    direction: Direction | None = Field(
        None, description="Whether more of the metric is better; null takes the metric's own direction."
    )
    retries: int = Field(1, ge=0, le=100, strict=True, description="How often a trial that crashed is retried.")
    executor: ExecutorField = Field(
        LOCAL,
        description="What trains the trials: local (processes on this machine), slurm or ray, with its parameters. It "
        "changes no result; `jepa-lab sweep --executor` takes another.",
    )
    resources: Resources = Field(Resources(), description="What each trial gets of a machine; it changes no result.")


SEARCH_KEYS = ("sampler", "sampler_seed", "budget", "pruner")
"""Keys that mean nothing without `search`."""


@dataclass(frozen=True)
class AblationFile:
    """A validated ablation and the lines that its values come from."""

    ablation: Ablation
    document: Document
    path: Path

    def place(self, *keys: str | int) -> str:
        """`file:line` of a value."""
        return self.document.place(keys)

    @property
    def engine(self) -> EngineSettings:
        """What trains the trials."""
        return EngineSettings(executor=self.ablation.executor, resources=self.ablation.resources)

    @property
    def name(self) -> str:
        """Of the sweep and its runs."""
        return self.path.stem if self.ablation.name is None else self.ablation.name


def load_ablation(path: Path) -> AblationFile:
    """Read an ablation file and check it against the schema.

    Raises:
        ConfigError: every problem on a line of its own.
    """
    load_plugins(())  # an installed package may bring an executor
    document = load_document(path)
    if "encoder" in document.data:
        raise ConfigError(f"this is a pipeline; use `jepa-lab run {path}`", place=document.place(("encoder",)))
    return ablation_of(document, path)


def ablation_of(document: Document, path: Path) -> AblationFile:
    """A document, checked against the schema.

    Args:
        path: of its file.
    Raises:
        ConfigError: every problem on a line of its own.
    """
    rebuild_schema(Ablation)
    try:
        return AblationFile(Ablation.model_validate(document.data), document, path)
    except ValidationError as error:
        raise ConfigProblems(*explain_all(document, error.errors(include_url=False), Ablation)) from None
