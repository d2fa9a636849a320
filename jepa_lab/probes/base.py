"""What a probe is: it measures what can be read off features, and says how well."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from jepa_lab.contracts import require
from jepa_lab.data.base import ImageSplit
from jepa_lab.measures import ACCURACY, MEASURES
from jepa_lab.probes.predictions import Predictions, accuracy_of
from jepa_lab.probes.splits import ProbeSplits, labels_of
from jepa_lab.probes.subject import Subject
from jepa_lab.registry import Component, ComponentParams, Registry


@dataclass(frozen=True)
class Score:
    """One number of a probe for each split, the more the better; that of the test split is None where there is none.

    Attributes:
        validation, test: shares in [0, 1].
        key: distinguishes it from the probe's other scores in the names of metrics; empty for the main one.
        label: the same for people.
        is_for_a_choice: it is one of several that the validation split chose from, and has no number on the test split.
        validation_interval, test_interval: 95% intervals, where the probe gives them.
        measure: what the numbers are, see `jepa_lab.measures`; names of metrics end with it.
    """

    validation: float | None
    test: float | None
    key: str = ""
    label: str = ""
    validation_interval: tuple[float, float] | None = None
    test_interval: tuple[float, float] | None = None
    is_for_a_choice: bool = False
    measure: str = ACCURACY

    def metrics(self) -> dict[str, float | None]:
        """`validation_accuracy` and `test_accuracy`, or of another measure; after the key where there is one."""
        found = {f"{self.prefix}validation_{self.measure}": self.validation}
        return found if self.is_for_a_choice else found | {f"{self.prefix}test_{self.measure}": self.test}

    @property
    def prefix(self) -> str:
        """What the key adds to the names of metrics."""
        return f"{self.key}_" if self.key else ""

    def to_dict(self) -> dict[str, Any]:
        """As JSON values, the numbers named by what they are."""
        values = asdict(self)
        return {f"{split}_{self.measure}": values.pop(split) for split in ("validation", "test")} | values


@dataclass(frozen=True)
class ProbeOutcome:
    """What a probe found.

    Attributes:
        scores: the main one first.
        details: more, as JSON values.
        notes: sentences about what a reader should know before trusting the accuracies; usually none.
        choice: what the validation split chose, in a few words such as "20 neighbours"; empty where it chose nothing.
        predictions: key of a score -> the predicted class of every image, for each score that has an accuracy; empty
            for a probe that predicts no class (`Probe.predicts_classes`).
    """

    scores: tuple[Score, ...]
    details: Mapping[str, Any]
    notes: tuple[str, ...] = ()
    choice: str = ""
    predictions: Mapping[str, Predictions] = field(default_factory=dict)

    def metrics(self) -> dict[str, float | None]:
        """Every score as flat numbers."""
        return {name: value for score in self.scores for name, value in score.metrics().items()}

    def to_dict(self) -> dict[str, Any]:
        """As JSON values, without the predictions."""
        scores = [score.to_dict() for score in self.scores]
        return {**self.details, "scores": scores, "notes": list(self.notes), "choice": self.choice}


class Probe(Component[ProbeSplits], ABC):
    """Measures an encoder, or raw pixels by the same code.

    The validation split makes every choice, the test split is scored once per probe. The encoder is left as it was.

    Args:
        params: the probe's own `Params`; `check` gets the images.
    """

    title: ClassVar[str]
    """Completes "Accuracy of ...", or "Mean IoU of ..."."""
    measure: ClassVar[str] = ACCURACY
    """Of all its scores, one of `jepa_lab.measures`."""
    gives_one_accuracy: ClassVar[bool] = True
    """Whether the first score has an empty key: `probe.method` needs one number."""
    needs_encoder: ClassVar[bool] = False
    """Whether raw pixels cannot be measured."""
    uses_seed: ClassVar[bool] = True
    """Whether what it finds depends on the run's seed; if not, raw pixels need one measurement for all seeds."""
    needs_labels: ClassVar[bool] = True
    """Whether it needs the classes of whole images."""
    predicts_classes: ClassVar[bool] = True
    """Whether its scores are shares of images whose predicted class, which it hands back, is the true one. False for
    any other measure, such as a mean IoU: intervals over images cannot be had for it."""

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
    require(probe, "measure", probe.measure in MEASURES, probe.measure, f"one of {', '.join(MEASURES)}")
    _require_distinct(probe, f"score_keys({depth})", probe.score_keys(depth))


def _require_distinct(probe: Probe, call: str, keys: object) -> None:
    fits = isinstance(keys, tuple) and len(keys) > 0 and all(isinstance(key, str) for key in keys)
    fits = fits and isinstance(keys, tuple) and len(set(keys)) == len(keys)
    require(probe, call, fits, keys, "a tuple of at least one text, each another one")


def require_outcome(probe: Probe, outcome: object, splits: ProbeSplits) -> None:
    """Refuse what `run` returned, unless it is an outcome that can be written down.

    Args:
        splits: what was probed on.
    Raises:
        PluginError, AssertionError: see `require`.
    """
    require(probe, "run", isinstance(outcome, ProbeOutcome), outcome, "a ProbeOutcome")
    assert isinstance(outcome, ProbeOutcome)
    scores = isinstance(outcome.scores, tuple) and all(isinstance(score, Score) for score in outcome.scores)
    require(probe, "run (scores)", scores and len(outcome.scores) > 0, outcome.scores, "a tuple of at least one Score")
    _require_distinct(probe, "run (keys of the scores)", tuple(score.key for score in outcome.scores))
    for score in outcome.scores:
        require(
            probe, "run (measure)", score.measure == probe.measure, score.measure, f"{probe.measure!r}, the probe's"
        )
        for name, value in ((f"validation_{score.measure}", score.validation), (f"test_{score.measure}", score.test)):
            share = value is None or (isinstance(value, int | float) and 0 <= value <= 1)
            require(probe, f"run ({name})", share, value, "a number in [0, 1] or None")
    require(probe, "run (choice)", isinstance(outcome.choice, str), outcome.choice, "a text")
    try:
        json.dumps(outcome.to_dict(), allow_nan=False)
    except (TypeError, ValueError) as error:
        require(probe, "run (details, notes)", False, f"values of which JSON has none ({error})", "JSON values")
    _require_predictions(probe, outcome, splits)


def _require_predictions(probe: Probe, outcome: ProbeOutcome, splits: ProbeSplits) -> None:
    """The predictions must be those that the accuracies are of."""
    scored = {score.key: score for score in outcome.scores if score.validation is not None}
    keys = set(scored) if probe.predicts_classes else set()
    found = outcome.predictions
    fits = set(found) == keys and all(isinstance(each, Predictions) for each in found.values())
    expected = f"Predictions for each score that has an accuracy ({', '.join(map(repr, sorted(keys)))}), or "
    expected += "`predicts_classes = False` in a probe that predicts no class for an image"
    if not probe.predicts_classes:
        expected = "none, because predicts_classes is False"
    require(probe, "run (keys of the predictions)", fits, tuple(found), expected)
    for key, each in found.items():
        score, names = scored[key], splits.class_names
        _require_accuracy(probe, "validation", each.validation, splits.validation, score.validation, names)
        _require_accuracy(probe, "test", each.test, splits.test, score.test, names)


def _require_accuracy(
    probe: Probe,
    name: str,
    predicted: np.ndarray | None,
    split: ImageSplit | None,
    accuracy: float | None,
    class_names: tuple[str, ...],
) -> None:
    """Predicted classes of a split, where it was scored, give the accuracy."""
    call = f"run (predictions of the {name} split)"
    if split is None or accuracy is None:
        require(probe, call, predicted is None, predicted, f"None, because there is no {name} accuracy")
        return
    is_array = isinstance(predicted, np.ndarray) and predicted.dtype.kind in "iu" and predicted.ndim in (1, 2)
    fits = is_array and predicted is not None and predicted.size > 0 and predicted.shape[-1] == len(split)
    require(probe, call, fits, predicted, f"an array of integers, [{len(split)}] or [R, {len(split)}]")
    assert predicted is not None
    lowest, highest = int(predicted.min()), int(predicted.max())
    inside = lowest >= 0 and highest < len(class_names)
    require(probe, call, inside, (lowest, highest), f"classes from 0 to {len(class_names) - 1}")
    share = accuracy_of(predicted, labels_of(split).numpy())
    call = f"run (share of the {name} images that are predicted right)"
    require(probe, call, abs(share - accuracy) < 1e-9, share, f"{accuracy!r}, the {name} accuracy")


PROBES: Registry[Probe] = Registry("probe", Probe)
