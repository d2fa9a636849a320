"""The sentences below a table: what its numbers are, what they can show, and what became of every trial."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from jepa_lab.reports.collapse_notes import is_collapsed, notes_of_collapse, notes_of_ended_points
from jepa_lab.reports.content import (
    HAS_RESULT,
    UNFINISHED,
    ReportInput,
    control_metric_of,
    is_test_metric,
    measured_trials,
    table_trials,
)
from jepa_lab.reports.detection import NO_IMAGES, POWER, ImageVariance, detectable_effect
from jepa_lab.reports.device_notes import notes_on_devices
from jepa_lab.reports.image_notes import notes_on_images
from jepa_lab.reports.image_scores import ImageScores
from jepa_lab.reports.monitor_names import num_images
from jepa_lab.reports.numbers import Scale
from jepa_lab.reports.probe_notes import notes_of_probes
from jepa_lab.reports.statistics import (
    ALPHA,
    CONFIDENCE,
    MAX_EXACT_FLIPS,
    ArmSummary,
    Comparison,
    equivalence_margin,
)
from jepa_lab.reports.wording import MOST_NAMES, at_most, counted, names_of_trials


def _monitored(content: ReportInput) -> str:
    count = num_images(content)
    return "the monitored validation images (at most 512)" if count is None else f"{count:,} validation images"


@dataclass(frozen=True)
class Decision:
    """What p, bold and everything said about differences go by.

    Attributes:
        metric: the deciding one.
        arms: all, the baseline first, summarised by it.
        scale: how its numbers are written.
        scores: which images each run got right, as far as that is known.
    """

    metric: str
    arms: Sequence[ArmSummary]
    scale: Scale
    scores: ImageScores


def footnotes_of(content: ReportInput, summaries: Sequence[ArmSummary], decision: Decision) -> tuple[str, ...]:
    """All footnotes of a table, as plain sentences.

    Args:
        summaries: of all arms, by the metric of the table.
    """
    return (
        *_fates(content),
        *notes_on_devices(content),
        *_of_the_search(content, decision),
        *_intervals(content, summaries),
        *notes_on_images(content, decision.metric, decision.arms, decision.scale, decision.scores),
        *_tests(decision),
        *_equivalence(decision.arms, decision.scale),
        *_power(decision.arms, decision.scale),
        *_measures(content),
    )


def _of_the_search(content: ReportInput, decision: Decision) -> list[str]:
    """Where the winner of a search is compared, and why not where it was chosen."""
    if content.search is None:
        return []
    notes = [
        f"The optimistic difference, by {content.metric}, is not evidence and has no p: the winner was chosen on the "
        "same validation images, and fresh seeds do not undo the luck that it had with them. The values of the search "
        "itself are optimistic as well."
    ]
    if any(each.mean.n for each in decision.arms):
        notes.append(
            f"The winner is compared with the baseline on the test split, by {decision.metric}: the test difference, "
            "its p and the bold. The test split is scored for these two alone, once for each of their fresh seeds."
        )
    else:
        notes.append(
            f"No trial here has a {decision.metric} (no test split, probe.score_test=false, or winner and baseline are "
            "not trained again yet): there is no p, and nothing is bold."
        )
    return [*notes, *notes_of_ended_points(content)]


def _fates(content: ReportInput) -> list[str]:
    """What became of the trials; a trial without a result is counted and named."""
    trials = table_trials(content)
    collapsed = is_collapsed(trials)
    notes = []
    for status, words in (
        ("FAILED", "failed"),
        ("PRUNED", "pruned (ended early because of its intermediate values)"),
        ("KILLED", "killed before the end"),
    ):
        chosen = trials[(trials["status"] == status) & ~collapsed]
        if len(chosen):
            notes.append(f"{counted(len(chosen), 'trial')} {words}: {names_of_trials(chosen)}.")
    notes += notes_of_collapse(content)
    finished = measured_trials(content)
    unmeasured = finished[finished[content.metric].isna()]
    if len(unmeasured):
        notes.append(
            f"{counted(len(unmeasured), 'trial')} ended without a {content.metric}: {names_of_trials(unmeasured)}."
        )
    waiting = int(trials["status"].isin(UNFINISHED).sum())
    if waiting:
        notes.append(f"{counted(waiting, 'trial')} still running or waiting: this table is not final.")
    return notes


def _intervals(content: ReportInput, summaries: Sequence[ArmSummary]) -> list[str]:
    if len(content.seeds) == 1:
        return [
            "One seed: there are no intervals and no p, and nothing is bold, because a single number does not tell an "
            "effect from the luck of a seed. Plan three seeds or more (five for a table to be published)."
        ]
    if all(summary.mean.n < 2 for summary in summaries):
        return ["No arm has two trials with a result yet: there are no intervals and no p, and nothing is bold."]
    without_baseline = [] if summaries[0].mean.n else ["The baseline has no result: no arm can be compared with it."]
    notes = [
        *without_baseline,
        f"Brackets are 95% intervals of Student's t over the seeds, {_on_which_images(content)}, not standard "
        "deviations. Those of differences are paired by seed. They are per comparison: with many arms some will miss "
        "the truth. Numbers that are the same with every seed have no interval.",
    ]
    planned = len(content.seeds)
    incomplete = [summary.arm for summary in summaries if summary.mean.n < planned]
    if incomplete:
        notes.append(
            f"n is the number of seeds with a result of the {planned} planned; fewer: "
            f"{at_most(incomplete, 'arms')}. Differences use the seeds that both arms have."
        )
    return [*notes, *_survival(content, summaries)]


def _on_which_images(content: ReportInput) -> str:
    if content.split_seeds is None or is_test_metric(content.metric):
        return "on these very images"
    return "each with a validation split of its own"


def _survival(content: ReportInput, summaries: Sequence[ArmSummary]) -> list[str]:
    """Which differences leave out seeds that were lost; seeds that are still to come are not lost."""
    trials = table_trials(content)
    of_fates = trials[["arm", "seed", "status", content.metric]]
    lost = {arm: _lost_seeds(of_fates[of_fates["arm"] == arm], content.metric) for arm in content.arms}
    conditional = [
        f"{each.arm} ({each.comparison.difference.n} of {len(content.seeds)} seeds)"
        for each in summaries
        if each.comparison and each.comparison.difference.n and (lost[each.arm] or lost[content.baseline])
    ]
    if not conditional:
        return []
    return [
        f"Conditional on survival: the differences of {at_most(conditional, 'arms')}. They leave out the "
        "seeds whose trial gave no result in the arm or the baseline; if what ended those trials is related to the "
        "arm, the differences are biased, and no interval shows it."
    ]


def _lost_seeds(trials: pd.DataFrame, metric: str) -> set[int]:
    """Seeds whose trials of an arm have all ended, none of them with the metric."""
    has_number = trials["status"].isin(HAS_RESULT) & trials[metric].notna()
    is_open = trials["status"].isin(UNFINISHED)
    return set(trials["seed"]) - set(trials.loc[has_number | is_open, "seed"])


def _without_spread(arms: Sequence[str]) -> list[str]:
    if not arms:
        return []
    return [
        f"The difference is the same with every seed for {at_most(arms, 'arms')}: there is no spread to "
        "judge by, hence no interval, and no p unless it is zero. More seeds or more images would show it."
    ]


def _tests(decision: Decision) -> list[str]:
    summaries = decision.arms
    pairs_of = {
        each.arm: each.comparison for each in summaries if each.comparison and each.comparison.difference.n >= 2
    }
    has_p = {each.arm for each in summaries if not math.isnan(each.holm_p)}
    compared = {arm: each for arm, each in pairs_of.items() if arm in has_p}
    notes = _without_spread([arm for arm, each in pairs_of.items() if math.isnan(each.difference.low)])
    if any(each.is_best_or_tied for each in summaries):
        notes.append(
            f"Bold: the best arm by {decision.metric}, and every arm that may be as good. An arm is not bold where "
            f"another one is better in a one-sided paired t test, with a p of at most {ALPHA} after correction for all "
            f"pairs of the {len(summaries)} planned arms (comparison with the best: Bonferroni over the others, Holm "
            "over the arms; of each pair the stricter of the tests over seeds and over seeds and images). An arm "
            "that is truly the best, alone or with others, loses its bold in at most 5% of tables; where a pair has no "
            "p, nothing is told apart. Controls and arms with fewer than two seeds are never bold."
        )
    if not compared:
        return notes
    planned = len(summaries) - 1
    rest = f"; the {planned - len(compared)} without a p count as well" if planned > len(compared) else ""
    notes.append(
        f"p: two-sided test against the baseline by {decision.metric}, {_which_test(compared.values())}, adjusted by "
        f"Holm over {counted(planned, 'arm')}{rest}."
    )
    pairs = {each.difference.n for each in compared.values()}
    floors = ", ".join(f"{min(1.0, 2.0 ** (1 - n)):.3g} with {n} seeds" for n in sorted(pairs) if n <= MAX_EXACT_FLIPS)
    if floors:
        exact = [f"{arm}: {each.sign_flip_p:.3g}" for arm, each in compared.items() if not math.isnan(each.sign_flip_p)]
        if len(exact) > MOST_NAMES:
            exact[MOST_NAMES:] = [f"{len(exact) - MOST_NAMES} more arms"]
        notes.append(
            f"Exact two-sided sign-flip p, not adjusted, by arm: {'; '.join(exact)}. It cannot be lower than {floors}."
        )
    return notes


def _which_test(compared: Iterable[Comparison]) -> str:
    """What p is of."""
    found = list(compared)
    if all(each.crossed is None for each in found):
        return "Student's paired t over the seeds"
    over_both = "the larger p of Student's paired t over the seeds and of the test over seeds and images"
    if any(each.crossed is None for each in found):
        return f"{over_both}, where the table has an interval over both, else of the former"
    return over_both


def _equivalence(summaries: Sequence[ArmSummary], scale: Scale) -> list[str]:
    """Finding no difference is not finding that there is none: how large it may still be."""
    margins = {
        each.arm: equivalence_margin(each.comparison.strict)
        for each in summaries
        if each.comparison and each.holm_p > ALPHA and not math.isnan(each.comparison.strict.low)
    }
    if not margins:
        return []
    unit = f" {scale.difference_unit}" if scale.difference_unit else ""
    named = [f"{arm} within {scale.value(margin)}{unit}" for arm, margin in list(margins.items())[:MOST_NAMES]]
    others = list(margins.values())[MOST_NAMES:]
    if others:
        named.append(f"{counted(len(others), 'more arm')} within {scale.value(max(others))}{unit}")
    return [
        f"No difference found (p above {ALPHA}), which does not mean that there is none. What is ruled out is a "
        f"difference from the baseline beyond these margins: {', '.join(named)} (two one-sided tests at "
        f"{(1 - CONFIDENCE) / 2:.1%} each, the level of the {CONFIDENCE:.0%} interval, {_over(summaries)}, per "
        "comparison)."
    ]


def _power(summaries: Sequence[ArmSummary], scale: Scale) -> list[str]:
    compared = [each.comparison for each in summaries if each.comparison and each.comparison.difference.n >= 2]
    if not compared:
        return []
    # Differences that came out alike with every seed say nothing about how far they would spread.
    spread = [each for each in compared if not math.isnan(each.difference.low)]
    if not spread:
        return ["The paired differences have no spread, so that no minimum detectable effect can be given."]
    sd = float(np.median([each.sd for each in spread]))
    pairs = int(np.median([each.difference.n for each in spread]))
    planned = len(summaries) - 1
    images = _variance_of_images(spread)
    found = detectable_effect(sd, pairs, planned, images)
    unit = f" {scale.difference_unit}" if scale.difference_unit else ""
    return [
        f"Minimum detectable effect: {_size(found.effect, scale)}{unit}, but anything from {_size(found.low, scale)} "
        f"to {_size(found.high, scale)}{unit} fits these data. It is the true difference that is found with a power of "
        f"{POWER} ({pairs} seeds, Holm over {counted(planned, 'arm')}, {_over(summaries)}) at the median paired "
        f"standard deviation, {scale.value(sd)}{unit}; the range is that of this standard deviation's 95% interval "
        "(chi-square), which "
        "a few seeds leave wide. Smaller differences can be real and go unnoticed here."
    ]


def _variance_of_images(compared: Sequence[Comparison]) -> ImageVariance:
    """What the images add to the variance of a typical difference."""
    known = [each.crossed for each in compared if each.crossed is not None]
    if not known:
        return NO_IMAGES
    of_images, spread = ([getattr(each, name) for each in known] for name in ("of_images", "spread_of_images"))
    return ImageVariance(max(0.0, float(np.median(of_images))), float(np.median(spread)))


def _over(summaries: Sequence[ArmSummary]) -> str:
    """What is said about differences is over."""
    compared = [each.comparison for each in summaries if each.comparison and each.comparison.difference.n >= 2]
    if all(each.crossed is None for each in compared):
        return "over seeds"
    mixed = any(each.crossed is None for each in compared)
    return f"over seeds and images{' where the table has that interval' if mixed else ''}"


def _size(effect: float, scale: Scale) -> str:
    """A difference, of accuracies at most the largest that there can be."""
    largest = 1.0 if scale.factor == 100 else math.inf
    return f"more than {scale.value(largest)}" if effect > largest else scale.value(effect)


def _measures(content: ReportInput) -> list[str]:
    notes = []
    if content.metric not in content.trials or content.trials[content.metric].isna().all():
        notes.append(
            f"No trial has a {content.metric}. Images without labels are not probed: name labelled ones under "
            "probe.data, or choose another metric."
        )
    if is_test_metric(content.metric):
        notes.append(
            f"The metric {content.metric} is of the test split: choosing by it makes every number here optimistic. "
            "Choose by the validation split."
        )
    elif content.search is None and content.metric_on_test in content.trials:
        notes.append(f"{content.metric_on_test} stands beside the table's metric: order, bold and p never use it.")
    if any(control_metric_of(content.metric, each) in content.trials for each in ("random_encoder", "raw_pixels")):
        notes.append(
            "Controls: the same probe on a randomly initialised encoder and on raw pixels, of the baseline's trials."
        )
    if any(each.values(content.metric) for each in content.references):
        notes.append(
            "References: encoders from elsewhere, which this sweep did not train, each probed once per validation "
            "split by the probe and on the images of the baseline. Their differences are from the baseline, over its "
            "seeds and, where that is known, the images. A reference is one encoder, and other seeds of it are not "
            "known: it has no p and is never bold."
        )
    notes += notes_of_probes(content)
    notes.append(
        "Numbers are those of the encoder after the last epoch; the best epoch by the online probe is not used. Where "
        "the test split is scored, it is scored once per probe. "
        "Parameters are those of encoder and predictor; parameters, training time and RankMe are means over the seeds. "
        f"RankMe is that of {_monitored(content)}, which are the same in every run"
        f"{'' if content.split_seeds is None else ' of a seed'}."
    )
    return notes
