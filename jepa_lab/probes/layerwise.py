"""The layer-wise probe: how accuracy depends on the depth that features are taken at."""

from __future__ import annotations

from pathlib import Path

from jepa_lab.figures.depths import draw_depths
from jepa_lab.probes.arrays import estimator_arrays
from jepa_lab.probes.base import PROBES, Probe, ProbeOutcome, Score
from jepa_lab.probes.features import Labelled
from jepa_lab.probes.logistic import LogisticParams, logistic_probe
from jepa_lab.probes.predictions import Predictions
from jepa_lab.probes.result import ProbeResult
from jepa_lab.probes.subject import Subject


@PROBES.register(
    "layerwise",
    summary="the logistic probe after every block of the encoder; a figure of accuracy by depth",
    source="linear probes of intermediate layers, Alain and Bengio 2016, arXiv:1610.01644",
)
class Layerwise(Probe):
    """Fits the logistic probe on the features of each block, after the final norm and averaged over patches.

    The validation split chooses the depth, as it chooses C: the test split is scored at that depth alone.
    """

    Params = LogisticParams
    params: LogisticParams
    title = "a logistic regression at the best depth"
    needs_encoder = True

    def score_keys(self, depth: int) -> tuple[str, ...]:
        return ("", *(f"depth_{block}" for block in range(1, depth + 1)))

    def run(self, subject: Subject) -> ProbeOutcome:
        names, depth = subject.splits.class_names, subject.depth
        splits = subject.layer_features(depth)  # `depth` times the memory of the logistic probe

        def at(labelled: Labelled, block: int) -> Labelled:
            features, labels = labelled
            return features.unflatten(1, (depth, -1))[:, block].contiguous(), labels  # [n, D]

        def probe(train: Labelled, validation: Labelled, test: Labelled | None) -> ProbeResult:
            return logistic_probe(train, validation, test, self.params, names, arrays=arrays)

        arrays = estimator_arrays(subject.device)
        results = [probe(at(splits.train, block), at(splits.validation, block), None) for block in range(depth)]
        best = max(range(depth), key=lambda block: (results[block].validation_accuracy, -block))
        chosen = results[best]
        if splits.test is not None:
            chosen = probe(*(at(part, best) for part in (splits.train, splits.validation, splits.test)))
        main = Score(
            chosen.validation_accuracy, chosen.test_accuracy, label="best block", test_interval=chosen.test_interval
        )
        each = [
            Score(result.validation_accuracy, None, f"depth_{block}", f"block {block}", is_for_a_choice=True)
            for block, result in enumerate(results, start=1)
        ]
        details = {
            "best_depth": best + 1,
            "validation_accuracy_by_depth": [result.validation_accuracy for result in results],
            "c_by_depth": [result.c for result in results],
        }
        notes = tuple(f"block {best + 1}: {note}" for note in chosen.notes())
        others = [str(block + 1) for block in range(depth) if block != best and results[block].c_at_edge is not None]
        if others:
            notes += (f"C is at an end of the values tried for block {', '.join(others)}, too",)
        choice = ", ".join(filter(None, (f"block {best + 1}", chosen.choice())))
        predictions = {"": chosen.predictions}
        predictions |= {
            score.key: Predictions(result.predictions.validation, None)
            for score, result in zip(each, results, strict=True)
        }
        return ProbeOutcome((main, *each), details, notes, choice, predictions)

    def draw(self, outcome: ProbeOutcome, class_names: tuple[str, ...], folder: Path) -> None:
        draw_depths(outcome.details["validation_accuracy_by_depth"], folder / "layerwise.png")
