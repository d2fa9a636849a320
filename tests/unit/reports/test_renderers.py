"""The table as Markdown, LaTeX, CSV and in the terminal, with names that each format could take for its own."""

from __future__ import annotations

import dataclasses
import io
import re
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import pytest

from jepa_lab.reports.content import ReportInput, cleaned
from jepa_lab.reports.latex import escape_latex, render_latex
from jepa_lab.reports.listings import top_points_table, trials_table, winner_sentence
from jepa_lab.reports.long_form import csv_text
from jepa_lab.reports.markdown import escape_markdown, render_markdown
from jepa_lab.reports.report import print_table
from jepa_lab.reports.shown import best_and_worst
from jepa_lab.reports.table import build_table
from jepa_lab.tables.terminal import print_text_table
from tests.unit.reports.frames import METRIC, NASTY_NAMES, make_content, make_search, set_trial
from tests.unit.tables.reading import WIDTHS, assert_lines_fit, assert_readable, printed


def test_every_markdown_line_of_a_table_has_the_same_number_of_cells() -> None:
    table = build_table(cleaned(make_content(NASTY_NAMES)))
    lines = [line for line in render_markdown([(table.as_text(), ())]).splitlines() if line.startswith("|")]
    assert len(lines) == 2 + len(NASTY_NAMES) + 2
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in lines} == {11}


def test_markdown_shows_names_as_they_are() -> None:
    assert escape_markdown("<b>|*x*") == r"&lt;b&gt;\|\*x\*"
    assert escape_markdown("validation_accuracy _x_") == r"validation_accuracy \_x\_"
    assert escape_markdown("~~no~~ # !") == r"\~\~no\~\~ \# \!"
    assert escape_markdown("a\\|b\nc") == r"a\\\|b c"
    assert escape_markdown("[a](http://b) `c` $d$") == r"\[a\](http://b) \`c\` \$d\$"


def test_markdown_marks_the_best_and_lists_the_footnotes() -> None:
    table = build_table(cleaned(make_content(effects=(0, 0, 0.1))))
    lines = render_markdown([(table.as_text(), table.footnotes)]).splitlines()
    assert [line.split(" | ")[0] for line in lines if "**" in line] == ["| random masks"]
    assert sum(line.startswith("- ") for line in lines) == len(table.footnotes)


def test_latex_shows_special_characters() -> None:
    assert escape_latex("50% & $x_1^2$ {a} #b ~c \\d") == (
        r"50\% \& \$x\_1\textasciicircum{}2\$ \{a\} \#b \textasciitilde{}c \textbackslash{}d"
    )
    assert escape_latex("−1.5 λ 基\n") == r"\ensuremath{-}1.5 \ensuremath{\lambda} U+57FA "
    assert escape_latex("--x") == "{-}{-}x"


def test_latex_says_how_to_include_it_and_uses_booktabs() -> None:
    table = build_table(cleaned(make_content()))
    text = render_latex(table.as_text(), table.footnotes)
    assert text.startswith("% In the preamble:")
    assert all(rule in text for rule in (r"\toprule", r"\midrule", r"\bottomrule"))
    assert r"\textbf{80.95 [80.23, 81.66]}" in text


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed")
def test_latex_compiles_with_every_kind_of_name(tmp_path: Path) -> None:
    latin = "".join(chr(code) for code in range(0xA0, 0x180))
    greek = "αβγδεζηθικλμνξοπρςστυφχψω ΑΒΓΔΘΛΞΠΣΥΦΨΩ"
    printable = "".join(chr(code) for code in range(32, 127))
    table = build_table(cleaned(make_content((*NASTY_NAMES, latin, greek, printable, "[x]"))))
    (tmp_path / "table.tex").write_text(render_latex(table.as_text(), table.footnotes), encoding="utf-8")
    (tmp_path / "paper.tex").write_text(
        r"\documentclass{article}\usepackage[T1]{fontenc}\IfFileExists{lmodern.sty}{\usepackage{lmodern}}{}"
        r"\usepackage{array,booktabs,graphicx}\begin{document}\input{table.tex}\end{document}"
    )
    done = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", "paper.tex"],
        cwd=tmp_path,
        capture_output=True,
        check=False,
    )
    log = done.stdout.decode(errors="replace")
    assert done.returncode == 0, log[-2000:]
    assert "Missing character" not in log
    assert (tmp_path / "paper.pdf").stat().st_size > 10_000


def test_the_csv_gives_back_every_number_of_every_trial() -> None:
    content = cleaned(set_trial(make_content(), "wide", 1, status="FAILED"))
    frame = pd.read_csv(io.StringIO(csv_text(content)))
    assert list(frame.columns[:4]) == ["arm", "seed", "metric", "value"]
    back = frame[frame["metric"] == METRIC].set_index(["arm", "seed"])["value"]
    for trial in content.trials.to_dict("records"):
        if trial["status"] == "FINISHED":
            assert back[(trial["arm"], trial["seed"])] == trial[METRIC]
    assert "rankme_end" in set(frame["metric"])
    silent = frame[frame["metric"].isna()]
    assert silent[["arm", "seed", "status"]].to_numpy().tolist() == [["wide", 1, "FAILED"]]


def test_the_csv_does_not_call_a_searched_parameter_a_result() -> None:
    metrics = set(pd.read_csv(io.StringIO(csv_text(cleaned(make_search()))))["metric"])
    assert METRIC in metrics
    assert not metrics & {"training.learning_rate", "masker.num_targets"}


def test_the_csv_of_no_trials_is_its_header() -> None:
    content = make_content()
    assert (
        csv_text(cleaned(make_content(trials=content.trials.iloc[:0]))) == "arm,seed,metric,value,status,role,number\n"
    )


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(
    "content",
    [
        make_content(),
        make_content(("two blocks", "four blocks", "three levels, pooling, skip connections")),
        make_content(("[bold]base[/bold]", "an-arm-with-a-rather-long-name-of-sixty-characters-in-all-xyz")),
        make_content(NASTY_NAMES, num_seeds=2),
        make_content(tuple(f"arm {number}" for number in range(40)), num_seeds=1),
        make_search(),
        make_content(("base",)),
    ],
    ids=["arms", "sentences", "long", "nasty", "many", "search", "one"],
)
def test_every_table_of_a_report_is_readable_in_a_terminal(content: ReportInput, width: int) -> None:
    text = printed(width, lambda console: print_table(content, console))
    assert_lines_fit(text, width)
    table = build_table(cleaned(content)).as_text()
    points = top_points_table(cleaned(content))
    for each in [table] if points is None else [table, points]:
        assert_readable(printed(width, lambda console, each=each: print_text_table(each, (), console)), each, width)
    arms = best_and_worst(build_table(cleaned(content)), 20, 5).arms
    for row in arms:
        assert all(f"{key}={value}" in text for key, value in row.changed.items())


def test_the_winner_of_a_search_is_printed_with_its_values() -> None:
    search = make_search()
    winner = {"training.learning_rate": 0.00123456, "masker.num_targets": 3.0, "masker.name": None}
    content = dataclasses.replace(search, trials=search.trials.copy())
    assert content.search is not None
    for key, value in winner.items():
        content.trials.loc[content.trials["arm"] == "winner", key] = value
    sentence = "Winner of the search: winner, training.learning_rate=0.00123456, masker.num_targets=3."
    assert sentence in " ".join(printed(80, lambda console: print_table(content, console)).split())
    undecided = dataclasses.replace(content, search=dataclasses.replace(content.search, winner=None))
    assert winner_sentence(cleaned(undecided)) is None
    assert winner_sentence(cleaned(make_content())) is None


def test_the_best_points_of_a_search_are_in_order_and_without_test_numbers() -> None:
    content = cleaned(make_search())
    table = top_points_table(content)
    assert table is not None
    values = [row[2].sort for row in table.rows]
    assert values == sorted(values, reverse=True)
    assert len(values) == 10
    assert values[0] == content.trials.query("role == 'search'")[METRIC].max()
    assert [column.heading for column in table.columns[3:]] == list(content.search.parameters)
    assert top_points_table(cleaned(make_content())) is None
    lower = top_points_table(cleaned(make_search(higher_is_better=False)))
    assert lower is not None
    assert lower.rows[0][2].sort == content.trials.query("role == 'search'")[METRIC].min()


def test_every_trial_is_listed_with_its_status_error_and_folder() -> None:
    content = cleaned(set_trial(make_content(), "wide", 1, status="FAILED", error="disk full", run_folder=None))
    rows = [[cell.text for cell in row] for row in trials_table(content).rows]
    assert len(rows) == 15
    assert rows[6] == ["6", "wide", "1", "arm", "FAILED", "–", "disk full", ""]
    assert rows[7][7] == "runs/wide-0a1b2c3d-s2"
