"""What a table says about its images: what the second interval covers, and where it is missing and why."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np

from jepa_lab.reports.content import ReportInput, is_test_metric
from jepa_lab.reports.image_scores import OTHER_IMAGES, ImageScores
from jepa_lab.reports.numbers import Scale
from jepa_lab.reports.statistics import ArmSummary
from jepa_lab.reports.wording import at_most
from jepa_lab.runs.predictions import ScoredImages


def notes_on_images(
    content: ReportInput, metric: str, arms: Sequence[ArmSummary], scale: Scale, scores: ImageScores
) -> list[str]:
    """Sentences about the interval over seeds and images of the deciding metric.

    Args:
        arms: all, the baseline first, summarised by the metric. scale: of its numbers.
    """
    compared = [each for each in arms if each.comparison and each.comparison.difference.n >= 2]
    if not compared:
        return []
    known = [each for each in compared if each.comparison and each.comparison.crossed is not None]
    missing = [each.arm for each in compared if each not in known]
    notes = [*_what_it_covers(content, metric, scale, scores)] if known else []
    return [*notes, *_why_missing(content, metric, missing, scores, all_of_them=not known)]


def _what_it_covers(content: ReportInput, metric: str, scale: Scale, scores: ImageScores) -> list[str]:
    images = scores.of(content.baseline, metric)
    counts = sorted({len(each.correct) for each in images.values()})
    how_many = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    one = next(iter(images.values()))
    draws = []
    if one.num_fits > 1:
        draws = [
            f"Every number is the mean of {one.num_fits} fits, such as one for each draw of labels: neither interval "
            "says what other draws would give."
        ]
    if content.split_seeds is not None and not is_test_metric(metric):
        return [_own_splits(content.split_seeds, how_many, list(images.values())), *draws]
    alone = scale.value(float(np.std(one.correct, ddof=1)) / math.sqrt(len(one.correct)))
    unit = f" {scale.difference_unit}" if scale.difference_unit else ""
    return [
        f"Over seeds and images: what other seeds on other images of the same kind would show ({how_many} images; the "
        "probe's training images stay the same; crossed random effects of seed and image with Satterthwaite's degrees "
        "of freedom, and never narrower than the interval over seeds). The interval over seeds holds for these very "
        "images only. p, bold, what is ruled out and what could have been detected follow the wider of both.",
        f"The brackets of means are over seeds alone. The images alone give the accuracy of one run of the baseline a "
        f"standard error of about {alone}{unit}.",
        *draws,
    ]


def _own_splits(split_seeds: Sequence[int], how_many: str, images: Sequence[ScoredImages]) -> str:
    """What the intervals are over where each seed has its own validation images."""
    pairs = list(itertools.combinations(images, 2))
    shared = [np.isin(one.positions, other.positions).mean() for one, other in pairs]
    share = f" ({np.mean(shared):.0%} on average)" if shared else ""
    splits = ", ".join(map(str, split_seeds))
    return (
        f"Each seed has a validation split of its own, the same for all arms ({how_many} images each; data.split_seed "
        f"{splits}); the test split is the same for all. The interval over seeds is therefore one over seeds and their "
        f"training and validation images. The interval over seeds and images adds that two splits share images{share}, "
        "and is never narrower (crossed random effects of seed and image with Satterthwaite's degrees of freedom). p, "
        "bold, what is ruled out and what could have been detected follow the wider of both."
    )


def _why_missing(
    content: ReportInput, metric: str, missing: Sequence[str], scores: ImageScores, *, all_of_them: bool
) -> list[str]:
    """The arms that are compared over seeds alone, by reason."""
    on_these = "on these very images" if content.split_seeds is None else "each with its own validation split"
    by_reason: dict[str, list[str]] = {}
    for arm in missing:
        by_reason.setdefault(_reason(content.baseline, arm, metric, scores), []).append(arm)
    return [
        f"No interval over seeds and images {_of(arms, all_of_them and len(by_reason) == 1)}by {metric}: {reason}. "
        f"There p, bold and what is ruled out are over seeds alone, {on_these}."
        for reason, arms in by_reason.items()
    ]


def _reason(baseline: str, arm: str, metric: str, scores: ImageScores) -> str:
    of_arm, of_baseline = scores.why_missing(arm, metric), scores.why_missing(baseline, metric)
    return of_baseline if of_arm == OTHER_IMAGES else of_arm


def _of(arms: Sequence[str], is_all: bool) -> str:
    if is_all:
        return ""
    return f"of {at_most(arms, 'arms')} "
