"""The tables at the end of a run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from jepa_lab.summary import print_probe, print_summary
from jepa_lab.training.phases import PHASES
from tests.unit.tables import reading
from tests.unit.tables.reading import WIDTHS, assert_lines_fit

TITLES = {"logistic": "a logistic regression on frozen features", "knn": "a vote of the nearest neighbours"}


def outcome(validation: float | None, test: float | None, **more: Any) -> dict[str, Any]:
    score = {"validation_accuracy": validation, "test_accuracy": test, "key": "", "label": ""}
    score |= {"validation_interval": None, "test_interval": None, "is_for_a_choice": False} | more
    return {"scores": [score], "notes": []}


def several(*scores: dict[str, Any]) -> dict[str, Any]:
    return {"scores": [outcome(None, None, **score)["scores"][0] for score in scores], "notes": []}


def printed(rows: dict[str, Any], titles: dict[str, str], width: int = 80) -> str:
    text = reading.printed(width, lambda console: print_probe({"probe": rows, "probe_titles": titles}, console))
    assert_lines_fit(text, width)
    return text


def row_of(text: str, name: str) -> list[str]:
    """The cells of the line that begins with a name."""
    line = next(line for line in text.splitlines() if line.startswith(name))
    return re.split(r"  +", line.removeprefix(name).strip())


def test_one_more_probe_stands_in_the_table_of_the_method() -> None:
    row = {"logistic": outcome(0.9, 0.8, test_interval=(0.75, 0.85)), "knn": outcome(0.7, 0.6)}
    text = printed({"trained": row, "random_encoder": row, "raw_pixels": row}, TITLES)
    assert "Accuracy of a logistic regression on frozen features" in text
    assert "knn test" in text
    for name in ("this run", "control: random encoder", "control: raw pixels"):
        assert row_of(text, name) == ["90.00%", "80.00%", "75.00 - 85.00", "60.00%"]


def test_one_more_probe_whose_column_does_not_fit_has_a_table_of_its_own() -> None:
    row = {"logistic": outcome(0.9, 0.8, test_interval=(0.75, 0.85)), "a_longer_name_of_a_probe": outcome(0.7, 0.6)}
    rows = {"trained": row, "random_encoder": row}
    text = printed(rows, {"logistic": "a regression", "a_longer_name_of_a_probe": "x"})
    assert row_of(text, "control: random encoder") == ["90.00%", "80.00%", "75.00 - 85.00"]
    assert "Accuracy of the other probes (test)" in text
    assert row_of(text, "a_longer_name_of_a_probe") == ["60.00%", "60.00%"]


def test_several_more_probes_have_a_table_of_their_own_within_80_columns() -> None:
    titles = TITLES | {"low_shot": "few", "layerwise": "depth", "finetune": "fine"}
    shots = [
        {"key": "100", "label": "100 labels a class", "test_accuracy": 0.5, "test_interval": (0.45, 0.55)},
        {"key": "1000", "label": "1000 labels a class"},
    ]
    depths = [
        {"label": "best block", "test_accuracy": 0.6},
        {"key": "d", "label": "block 12", "validation_accuracy": 0.4, "is_for_a_choice": True},
    ]
    row = {
        "logistic": outcome(0.9, 0.8, test_interval=(0.75, 0.85)),
        "knn": outcome(0.7, 0.6),
        "low_shot": several(*shots),
    }
    of_encoders = row | {"layerwise": several(*depths), "finetune": outcome(1.0, 1.0, test_interval=(0.99, 1.0))}
    text = printed({"trained": of_encoders, "random_encoder": of_encoders, "raw_pixels": row}, titles)
    assert "knn test" not in text
    assert row_of(text, "low_shot, 100 labels a class") == ["50.00% ±5.0"] * 3
    assert row_of(text, "low_shot, 1000 labels a class") == ["-", "-", "-"]
    assert row_of(text, "layerwise, block 12") == ["v 40.00%", "v 40.00%", "-"]
    assert row_of(text, "finetune") == ["100.00%", "100.00%", "-"]


def test_without_a_test_split_validation_accuracies_are_shown() -> None:
    row = {"logistic": outcome(0.9, None), "knn": outcome(0.7, None)}
    text = printed({"trained": row | {"low_shot": outcome(0.4, None)}}, TITLES | {"low_shot": "few"})
    assert "Accuracy of the other probes (validation)" in text
    assert "70.00%" in text
    assert "40.00%" in text
    assert "knn validation" in printed({"trained": row}, TITLES)


def test_a_method_that_a_control_cannot_have_leaves_dashes() -> None:
    rows = {"trained": {"finetune": outcome(0.9, 0.8)}, "raw_pixels": {}}
    assert row_of(printed(rows, {"finetune": "fine-tuning"}), "control: raw pixels") == ["-", "-", "-"]


def test_a_note_that_holds_for_several_rows_is_told_once() -> None:
    row = {"logistic": outcome(0.9, 0.8) | {"notes": ["C=1 is large"]}, "knn": outcome(0.7, 0.6) | {"notes": ["hm"]}}
    text = printed({"trained": row, "raw_pixels": row}, TITLES)
    assert text.count("C=1 is large") == 1
    assert "note on this run, control: raw pixels: knn: hm" in text


def test_what_validation_chose_is_shown_for_every_row() -> None:
    def row(choice: str) -> dict[str, Any]:
        return {"logistic": outcome(0.9, 0.8) | {"choice": ""}, "knn": outcome(0.7, 0.6) | {"choice": choice}}

    rows = {"trained": row("20 neighbours"), "random_encoder": row("10 neighbours"), "raw_pixels": row("20 neighbours")}
    expected = (
        "chosen on validation by knn: 20 neighbours (this run, control: raw pixels); "
        "10 neighbours (control: random encoder)"
    )
    text = " ".join(printed(rows, TITLES).split())
    assert expected in text
    assert text.count("chosen on") == 1


@pytest.mark.parametrize("validation", [0.743, 0.75])
def test_a_run_that_does_not_beat_its_own_random_encoder_is_told_so(validation: float) -> None:
    rows = {
        "trained": {"logistic": outcome(validation, 0.9), "knn": outcome(0.7, 0.6)},
        "random_encoder": {"logistic": outcome(0.75, 0.8), "knn": outcome(0.6, 0.7)},
    }
    text = " ".join(printed(rows, TITLES).split())
    assert "NOT BETTER THAN RANDOM: on the validation split the trained encoder" in text
    assert f"started as: {100 * validation:.2f}% against 75.00% by logistic. Nothing shows" in text


def test_a_run_that_beats_its_random_encoder_is_not_told_about_the_test_split_or_single_depths() -> None:
    depths = several({"validation_accuracy": 0.3, "key": "depth_1", "label": "block 1", "is_for_a_choice": True})
    row = {"logistic": outcome(0.76, 0.7), "layerwise": depths}
    rows = {"trained": row, "random_encoder": {"logistic": outcome(0.75, 0.8), "layerwise": depths}}
    titles = {"logistic": "a logistic regression", "layerwise": "depth"}
    assert "NOT BETTER" not in printed(rows, titles)
    assert "NOT BETTER" not in printed({"trained": row}, titles)
    assert "NOT BETTER" not in printed({row: {"logistic": outcome(None, None)} for row in rows}, {"logistic": "x"})


@pytest.mark.parametrize(
    ("collapsed", "in_words", "told"),
    [
        (True, "the ratio is 1e-06; the run is marked collapsed", "COLLAPSED the ratio is 1e-06; the run is marked"),
        (True, None, "COLLAPSED see the warnings in the log. What may help: lower optimizer.learning_rate"),
        (False, "the features have lost directions", "WARNING the features have lost directions. What may help: lower"),
        (False, None, None),
    ],
)
def test_the_end_of_a_run_says_what_the_monitors_said_last(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    collapsed: bool,
    in_words: str | None,
    told: str | None,
) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    metrics = {"rankme_start": 1.0, "rankme_end": 2.0, "images_per_second": 1.0, "training_seconds": 1.0}
    result = {"metrics": metrics, "total_seconds": 1.0, "collapsed": collapsed, "probe": None, "probe_skipped": "none"}
    print_summary(result | {"collapse": {"status": "-", "in_words": in_words}}, Path("runs/a"), "none")
    text = " ".join(capsys.readouterr().out.split())
    assert told in text if told is not None else "COLLAPSED" not in text and "WARNING" not in text


def test_a_folder_whose_name_looks_like_markup_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    metrics = {"rankme_start": 1.0, "rankme_end": 2.0, "images_per_second": 1.0, "training_seconds": 1.0}
    result = {"metrics": metrics, "total_seconds": 1.0, "collapsed": False, "probe": None, "probe_skipped": "none"}
    print_summary(result, Path("runs/a[bold]b"), "MLflow experiment '[x]'")
    printed = capsys.readouterr().out
    assert "runs/a[bold]b" in printed
    assert "'[x]'" in printed


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({}, "1.0 at the start, 2.0 at the end\n"),
        ({"rankme_images": 287.0}, "1.0 at the start, 2.0 at the end (287 validation images)\n"),
        (
            {"rankme_images": 287.0, "monitor/rankme_train": 14.62, "monitor/rankme_train_images": 25600.0},
            "1.0 at the start, 2.0 at the end (287 validation images), 14.6 (25,600 training images)\n",
        ),
    ],
    ids=["an older result", "without monitors at the end", "with them"],
)
def test_rankme_says_of_how_many_images_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, more: dict[str, float], told: str
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    metrics = {"rankme_start": 1.0, "rankme_end": 2.0, "images_per_second": 1.0, "training_seconds": 1.0} | more
    result = {"metrics": metrics, "total_seconds": 1.0, "collapsed": False, "probe": None, "probe_skipped": "none"}
    print_summary(result, Path("runs/a"), "none")
    assert told in capsys.readouterr().out


def test_the_end_of_a_run_says_where_its_time_went(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    metrics = {"rankme_start": 1.0, "rankme_end": 2.0, "images_per_second": 1.0, "training_seconds": 1.0}
    result = {"metrics": metrics, "total_seconds": 90.0, "collapsed": False, "probe": None, "probe_skipped": "none"}
    phases: dict[str, Any] = dict.fromkeys(PHASES, 0.0) | {"loading": 2.04, "training": 60.0, "checkpoints": 0.3}
    rows = {"trained": 20.0, "raw_pixels": 5.0}
    seconds = phases | {"final_probe": 25.0, "final_probe_rows": rows, "total": 90.0}
    print_summary(result | {"seconds": seconds}, Path("runs/a"), "none")
    told = "loading 2.0 s, training 60.0 s, final probe 25.0 s (this run 20.0 s, raw pixels 5.0 s)\n"
    assert told in capsys.readouterr().out


@pytest.mark.parametrize(
    ("skipped", "told"), [({}, False), ({"skipped_steps": 0.0}, False), ({"skipped_steps": 12.0}, True)]
)
def test_the_end_of_a_run_says_how_many_batches_were_skipped(
    skipped: dict[str, float], told: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = {"rankme_start": 1.0, "rankme_end": 2.0, "images_per_second": 1.0, "training_seconds": 1.0, **skipped}
    result = {"metrics": metrics, "total_seconds": 1.0, "collapsed": False, "probe": None, "probe_skipped": "none"}
    print_summary(result, Path("runs/a"), "none")
    printed = " ".join(capsys.readouterr().out.split())
    sentence = "skipped steps 12, because loss or gradients were not finite"
    assert (sentence in printed) == told


@pytest.mark.parametrize("width", WIDTHS)
def test_the_end_of_a_run_fits_whatever_its_folder_and_probes_are_called(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    row = {"logistic": outcome(0.9, 0.8, test_interval=(0.75, 0.85)) | {"notes": ["C=100 is the largest " * 9]}}
    row |= {f"a_probe_of_a_third_party_{number}": outcome(0.7, 0.6) for number in range(3)}
    rows = dict.fromkeys(("trained", "other_encoder", "random_encoder", "raw_pixels"), row)
    metrics = {"rankme_start": 1.0, "rankme_end": 2.0, "images_per_second": 1.0, "training_seconds": 1.0}
    result = {"metrics": metrics, "total_seconds": 1.0, "collapsed": True, "probe": rows}
    result |= {"probe_titles": {name: f"the probe {name}" for name in row}}
    folder = Path("runs") / "a-long-name-of-a-run-that-somebody-gave" / "digits-0123abcd-s0" / "and-more-of-it"
    print_summary(result, folder, "MLflow experiment 'jepa-lab'; open it with `jepa-lab ui`")
    text = capsys.readouterr().out
    assert_lines_fit(text, width)
    assert str(folder) in "".join(text.split())
    for name in row:
        assert name in text
    assert row_of(text, "a_probe_of_a_third_party_2") == ["60.00%"] * 4
