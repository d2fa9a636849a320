"""What a probe is: it measures what can be read off features, and says how well."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from jepa_lab.contracts import require
from jepa_lab.probes.splits import ProbeSplits
from jepa_lab.probes.subject import Subject
from jepa_lab.registry import Component, ComponentParams, Registry


@dataclass(frozen=True)
class Score:
    """One accuracy of a probe. Test fields are None where there is no test split.

    Attributes:
        key: distinguishes it from the probe's other scores in the names of metrics; empty for the main one.
        label: the same for people.
        is_for_a_choice: it is one of several that the validation split chose from, and has no test accuracy.
        validation_interval, test_interval: 95% intervals, where the probe gives them.
    """

    validation_accuracy: float | None
    test_accuracy: float | None
    key: str = ""
    label: str = ""
    validation_interval: tuple[float, float] | None = None
    test_interval: tuple[float, float] | None = None
    is_for_a_choice: bool = False

    def metrics(self) -> dict[str, float | None]:
        """`validation_accuracy` and `test_accuracy`, after the key where there is one."""
        found = {f"{self.prefix}validation_accuracy": self.validation_accuracy}
        return found if self.is_for_a_choice else found | {f"{self.prefix}test_accuracy": self.test_accuracy}

    @property
    def prefix(self) -> str:
        """What the key adds to the names of metrics."""
        return f"{self.key}_" if self.key else ""


@dataclass(frozen=True)
class ProbeOutcome:
    """What a probe found.

    Attributes:
        scores: the main one first.
        details: more, as JSON values.
        notes: sentences about what a reader should know before trusting the accuracies; usually none.
        choice: what the validation split chose, in a few words such as "20 neighbours"; empty where it chose nothing.
    """

    scores: tuple[Score, ...]
    details: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    choice: str = ""

    def metrics(self) -> dict[str, float | None]:
        """Every score as flat numbers."""
        return {name: value for score in self.scores for name, value in score.metrics().items()}

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        scores = [asdict(score) for score in self.scores]
        return {**self.details, "scores": scores, "notes": list(self.notes), "choice": self.choice}


class Probe(Component[ProbeSplits], ABC):
    """Measures an encoder, or raw pixels by the same code.

    The validation split makes every choice, the test split is scored once per probe. The encoder is left as it was.

    Args:
        params: the probe's own `Params`; `check` gets the images.
    """

    title: ClassVar[str]
    """Completes "Accuracy of ..."."""
    gives_one_accuracy: ClassVar[bool] = True
    """Whether the first score has an empty key: `probe.method` needs one number."""
    needs_encoder: ClassVar[bool] = False
    """Whether raw pixels cannot be measured."""
    uses_seed: ClassVar[bool] = True
    """Whether what it finds depends on the run's seed; if not, raw pixels need one measurement for all seeds."""

    def __init__(self, params: ComponentParams) -> None:
        self.params = params

    def score_keys(self, depth: int) -> tuple[str, ...]:
        """The keys of the scores that `run` gives, for an encoder of so many blocks."""
        return ("",)

    @abstractmethod
    def run(self, subject: Subject) -> ProbeOutcome:
        """Measure."""

    def draw(self, outcome: ProbeOutcome, class_names: tuple[str, ...], folder: Path) -> None:
        """Write the figures of an outcome."""


def require_keys(probe: Probe, depth: int) -> None:
    """Refuse a probe that does not say what it measures, before anything is trained for it.

    Args:
        depth: blocks of the encoder.
    Raises:
        PluginError, AssertionError: see `require`.
    """
    require(probe, "title", isinstance(probe.title, str), probe.title, "a text")
    _require_distinct(probe, f"score_keys({depth})", probe.score_keys(depth))


def _require_distinct(probe: Probe, call: str, keys: object) -> None:
    fits = isinstance(keys, tuple) and len(keys) > 0 and all(isinstance(key, str) for key in keys)
    fits = fits and isinstance(keys, tuple) and len(set(keys)) == len(keys)
    require(probe, call, fits, keys, "a tuple of at least one text, each another one")


def require_outcome(probe: Probe, outcome: object) -> None:
    """Refuse what `run` returned, unless it is an outcome that can be written down.

    Raises:
        PluginError, AssertionError: see `require`.
    """
    require(probe, "run", isinstance(outcome, ProbeOutcome), outcome, "a ProbeOutcome")
    assert isinstance(outcome, ProbeOutcome)
    scores = isinstance(outcome.scores, tuple) and all(isinstance(score, Score) for score in outcome.scores)
    require(probe, "run (scores)", scores and len(outcome.scores) > 0, outcome.scores, "a tuple of at least one Score")
    _require_distinct(probe, "run (keys of the scores)", tuple(score.key for score in outcome.scores))
    for score in outcome.scores:
        for name in ("validation_accuracy", "test_accuracy"):
            value = getattr(score, name)
            share = value is None or (isinstance(value, int | float) and 0 <= value <= 1)
            require(probe, f"run ({name})", share, value, "a number in [0, 1] or None")
    require(probe, "run (choice)", isinstance(outcome.choice, str), outcome.choice, "a text")
    try:
        json.dumps(outcome.to_dict(), allow_nan=False)
    except (TypeError, ValueError) as error:
        require(probe, "run (details, notes)", False, f"values of which JSON has none ({error})", "JSON values")


PROBES: Registry[Probe] = Registry("probe", Probe)
