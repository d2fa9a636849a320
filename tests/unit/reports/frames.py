"""Synthetic trials: what a sweep would have left, without training anything."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from jepa_lab.reports.content import CURVE_COLUMNS, ReportInput, SearchInput
from jepa_lab.runs.predictions import RunPredictions, SplitImages

METRIC = "probe/validation_accuracy"
CURVES = {
    "probe/online_validation_accuracy": (0.3, 0.6),
    "validation/loss": (0.5, -0.4),
    "monitor/rankme": (4.0, 20.0),
    "monitor/feature_std": (0.1, 0.3),
    "monitor/image_variance_ratio": (0.1, 0.5),
    "monitor/rankme_centred": (3.0, 15.0),
}
NASTY_NAMES = (
    "<script>alert(1)</script>",
    "a|b `code` *bold* _x_ [link](http://x) ~~no~~ # $1^2_3$ {y} \\input{z} 100% & \"q\" 'p' <b>",
    "_starts with an underscore",
    "基準 λ=0.5 é ß ñ ∑ \U0001f642",
    "two\nlines\tand a tab",
    "=SUM(A1)",
)


def make_content(
    arms: Sequence[str] = ("base", "wide", "random masks"),
    num_seeds: int = 5,
    effects: Sequence[float] | None = None,
    **changes: Any,
) -> ReportInput:
    """A finished sweep of `arms` over seeds 0, 1, ...; any field of `ReportInput` can be replaced.

    Args:
        effects: what each arm adds to the accuracy; 0.5 points more with each arm if None.
    """
    random = np.random.default_rng(0)
    effects = effects if effects is not None else [0.005 * i for i in range(len(arms))]
    of_seed = random.normal(0, 0.01, num_seeds)
    rows = [
        _trial(random, arm, seed, 0.8 + effect + of_seed[seed], 10 + 5 * index)
        for index, (arm, effect) in enumerate(zip(arms, effects, strict=True))
        for seed in range(num_seeds)
    ]
    trials = pd.DataFrame(rows).assign(number=range(len(rows)), role="arm")
    content = ReportInput(
        title="Does a wider predictor help?",
        kind="arms",
        baseline=arms[0],
        arms=tuple(arms),
        changed={
            arm: {"predictor.embed_dim": str(64 * (i + 2)), "masker.name": "random"} for i, arm in enumerate(arms[1:])
        },
        metric=METRIC,
        higher_is_better=True,
        seeds=tuple(range(num_seeds)),
        notes=("Python 3.11.7, torch 2.9.0, jepa-lab 0.1.0", "Device: cpu, 2 cores", "Commit 0123abc"),
        trials=trials,
        curves=_curves(random, trials),
    )
    return dataclasses.replace(content, **changes)


def make_search(num_points: int = 20, **changes: Any) -> ReportInput:
    """A finished search over two numbers and a name, its winner and the baseline trained again on three seeds."""
    content = make_content(("base", "winner"), 3, (0.0, 0.02))
    random = np.random.default_rng(1)
    rates = 10 ** random.uniform(-4, -2, num_points)
    points = []
    for number, rate in enumerate(rates):
        accuracy = 0.8 - 0.02 * (np.log10(rate) + 3) ** 2 + random.normal(0, 0.004)
        point = _trial(random, f"point {number}", 0, accuracy, 20)
        point |= {"number": number, "role": "search", "training.learning_rate": rate}
        point |= {"masker.num_targets": 1 + number % 4, "masker.name": ("random", "multi_block")[number % 2]}
        if number % 7 == 3:
            point |= {"status": "PRUNED", METRIC: np.nan}
        points.append(point)
    values = [point[METRIC] for point in points]
    history = pd.DataFrame({"number": range(num_points), "value": values})
    history["best"] = history["value"].cummax().ffill()
    finals = content.trials.assign(role="final", number=range(num_points, num_points + 6))
    parameters = ("training.learning_rate", "masker.num_targets", "masker.name")
    importances = {"training.learning_rate": 0.8, "masker.num_targets": 0.15, "masker.name": 0.05}
    return dataclasses.replace(
        content,
        kind="search",
        changed={"winner": {"training.learning_rate": "0.001"}},
        trials=pd.concat([pd.DataFrame(points), finals], ignore_index=True),
        search=SearchInput(history, importances, parameters, "winner"),
        **changes,
    )


def set_trial(content: ReportInput, arm: str, seed: int, **values: Any) -> ReportInput:
    """The content with columns of one trial replaced; `status` other than FINISHED takes its numbers away."""
    trials = content.trials.copy()
    chosen = (trials["arm"] == arm) & (trials["seed"] == seed)
    if values.get("status", "FINISHED") not in ("FINISHED", "COLLAPSED"):
        numeric = [name for name in trials.select_dtypes("number") if name not in ("seed", "number")]
        trials[numeric] = trials[numeric].astype(float)
        trials.loc[chosen, numeric] = np.nan
    for name, value in values.items():
        trials.loc[chosen, name] = value
    return dataclasses.replace(content, trials=trials)


def _trial(random: np.random.Generator, arm: str, seed: int, accuracy: float, rankme: float) -> dict[str, Any]:
    value = float(accuracy + random.normal(0, 0.003))
    return {
        "arm": arm,
        "seed": seed,
        "status": "FINISHED",
        "run_folder": f"runs/{arm}-0a1b2c3d-s{seed}",
        "error": None,
        METRIC: value,
        "probe/test_accuracy": value - 0.012,
        "random_encoder/validation_accuracy": 0.6 + float(random.normal(0, 0.004)),
        "random_encoder/test_accuracy": 0.59 + float(random.normal(0, 0.004)),
        "raw_pixels/validation_accuracy": 0.7,
        "raw_pixels/test_accuracy": 0.69,
        "rankme_end": rankme + float(random.normal(0, 1)),
        "training_seconds": 60.0 * rankme / 10 + float(random.normal(0, 4)),
        "encoder_parameters": 1_200_000.0,
        "predictor_parameters": 30_000.0 * rankme,
        "collapsed": 0.0,
    }


def _curves(random: np.random.Generator, trials: pd.DataFrame, epochs: int = 12) -> pd.DataFrame:
    rows = []
    for index, (arm, seed) in enumerate(zip(trials["arm"], trials["seed"], strict=True)):
        for name, (start, rise) in CURVES.items():
            for epoch in range(epochs + 1):
                value = start + rise * (1 - 0.8**epoch) * (1 + 0.01 * index) + random.normal(0, 0.01 * abs(rise))
                rows.append((arm, seed, 10 * epoch, float(epoch), name, value))
    return pd.DataFrame(rows, columns=list(CURVE_COLUMNS))


def with_predictions(content: ReportInput, num_images: int = 200, interaction: float = 2.0) -> ReportInput:
    """The same trials with the images that each got right on both splits, and accuracies that are those of them."""
    random, trials = np.random.default_rng(7), content.trials.copy()
    rows = {"probe": "trained", "random_encoder": "random_encoder", "raw_pixels": "raw_pixels"}
    worlds = {
        (split, row): random.normal(1.5, 2.0, num_images) + interaction * random.standard_normal((9, num_images))
        for split in ("validation", "test")
        for row in rows
    }
    kept: dict[str, RunPredictions | str] = {}
    for index, trial in trials.iterrows():
        tensors, metrics = {}, {}
        for (split, row), logits in worlds.items():
            labels = np.arange(num_images) % 10
            of_arm = logits[content.arms.index(trial["arm"])]
            right = random.random(num_images) * (1 + np.exp(-of_arm)) < 1
            name, metric = f"{split}/{rows[row]}/logistic", f"{row}/{split}_accuracy"
            tensors |= {f"{split}/positions": np.arange(num_images), f"{split}/labels": labels}
            tensors[name], metrics[metric] = np.where(right, labels, (labels + 1) % 10), name
            trials.loc[index, metric] = right.mean()  # type: ignore[index]
        images = {split: SplitImages("a data set", "its pixels", 8) for split in ("validation", "test")}
        kept[trial["run_folder"]] = RunPredictions(tuple(map(str, range(10))), images, metrics, tensors)
    return dataclasses.replace(content, trials=trials, predictions=kept)
