"""Tables in a terminal: every column, whole words, lines that fit."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from jepa_lab.tables.cells import Cell, Column, TextTable, text_columns
from jepa_lab.tables.terminal import print_listing, print_text_table, print_wrapped
from jepa_lab.tables.widths import blocks_of
from jepa_lab.tables.wrapping import wrap
from tests.unit.tables.reading import WIDTHS, assert_lines_fit, assert_readable, printed

INTERVALS = ("39.2 [14.3, 64.1]", "−1.0 [−13.4, +11.5]", "1.00", "54.7 [52.4, 57.4]")


def wide_table(*names: str, differs: str = "masker=multi_block(num_targets=4, target_scale=[0.15, 0.2])") -> TextTable:
    columns = (
        *text_columns("arm", "differs in"),
        Column("probe/online_validation_accuracy", "% [95% interval]", group=1),
        Column("difference", "points [95% interval]", group=1),
        Column("p", "(Holm)", group=1),
        Column("probe/test_accuracy", "% [95% interval]", group=1),
        Column("parameters", group=2),
        Column("training time", group=2),
    )
    rows = [(name, differs, *INTERVALS, "143k", "2.0 min") for name in names]
    return TextTable("A caption of some words", columns, tuple(tuple(map(Cell, row)) for row in rows))


def show(table: TextTable, width: int) -> str:
    return printed(width, lambda console: print_text_table(table, ("A sentence. " * 12,), console))


@pytest.mark.parametrize("width", [40, 60, *WIDTHS, 200])
@pytest.mark.parametrize("names", [("base",), ("two blocks", "four blocks", "a rather long name of an arm")])
def test_every_column_is_there_no_word_is_broken_and_every_line_fits(width: int, names: tuple[str, ...]) -> None:
    table = wide_table(*names, differs="masker=random, epochs=3")
    assert_readable(show(table, width), table, width)


@pytest.mark.parametrize("width", WIDTHS)
def test_a_long_change_is_broken_at_its_joints(width: int) -> None:
    table = wide_table("base", "other")
    text = show(table, width)
    assert_readable(text, table, width)
    assert "[0.15, 0.2])" in text
    assert "target_scale=" in text


@pytest.mark.parametrize("width", [30, *WIDTHS])
def test_names_of_any_length_and_script_fit(width: int) -> None:
    names = ("x" * 200, "an-arm-with-a-rather-long-name-of-sixty-characters-in-all-xyz", "基準" * 60, "🙂" * 50)
    text = show(wide_table(*names), width)
    assert_lines_fit(text, width)
    assert text.count("🙂") % 50 == 0 < text.count("🙂")
    assert text.count("基") == text.count("準") > 0


def test_columns_that_do_not_fit_follow_below_with_the_first_column() -> None:
    table = wide_table("base", "other")
    blocks = blocks_of(table, 80)
    assert [block.columns[0] for block in blocks] == [0] * len(blocks)
    assert sorted(index for block in blocks for index in block.columns[1:]) == list(range(1, len(table.columns)))
    assert len(blocks) == 2
    assert [block.columns for block in blocks] == [(0, 1, 6, 7), (0, 2, 3, 4, 5)]
    text = show(table, 80)
    assert sum(line.startswith("arm") for line in text.splitlines()) == 2


def test_a_group_wider_than_the_terminal_is_divided_in_its_order() -> None:
    columns = (*text_columns("trial"), *(Column(f"section.a_parameter_number_{index}") for index in range(12)))
    table = TextTable("", columns, ((Cell("0"), *[Cell("0.000404008")] * 12),))
    blocks = blocks_of(table, 80)
    assert [index for block in blocks for index in block.columns if index] == list(range(1, 13))
    assert len(blocks) == 3
    assert_readable(show(table, 80), table, 80)


def test_a_wide_terminal_shows_one_table_with_a_line_for_each_row() -> None:
    lines = show(wide_table("base", "other"), 250).splitlines()
    assert sum("14.3" in line and "57.4" in line and "2.0 min" in line for line in lines) == 2


def test_intervals_of_a_table_are_on_one_line_together_or_not_at_all() -> None:
    for width in range(60, 220, 3):
        lines = show(wide_table("base"), width).splitlines()
        whole = [any(interval in line for line in lines) for interval in INTERVALS if "[" in interval]
        assert len(set(whole)) == 1, width


def test_rows_of_several_lines_are_kept_apart_by_an_empty_line() -> None:
    text = show(wide_table("a baseline of many words", "another arm of many words"), 80)
    body = text[text.rindex("─\n") + 2 :].split("\n\n- ")[0]
    assert len(body.strip().split("\n\n")) == 2


def test_a_table_without_rows_shows_its_headings() -> None:
    assert "differs in" in show(wide_table(), 80)


def test_escape_sequences_in_a_name_do_nothing() -> None:
    text = show(wide_table("a\x1b[31mred\rb\tc [bold]d[/bold]"), 120)
    assert "\x1b" not in text
    assert "\r" not in text
    assert "\\x1b[31mred\\rb" in text
    assert "[bold]d[/bold]" in text


def test_the_best_cell_is_bold() -> None:
    table = TextTable("", text_columns("a", "b"), ((Cell("x"), Cell("y", bold=True)),))
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system="standard")
    print_text_table(table, (), console)
    assert "\x1b[1my" in console.file.getvalue()  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "width", "lines"),
    [
        ("probe/validation_accuracy", 14, ["probe/", "validation_", "accuracy"]),
        ("probe/validation_accuracy", 20, ["probe/validation_", "accuracy"]),
        ("39.2 [14.3, 64.1]", 14, ["39.2", "[14.3, 64.1]"]),
        ("a=1, b=[0.1, 0.2]", 12, ["a=1,", "b=[0.1, 0.2]"]),
        ("lr=1e-05, x=0.15", 10, ["lr=1e-05,", "x=0.15"]),
        ("one\ntwo three", 20, ["one", "two three"]),
        ("", 5, [""]),
        ("epoch 1  loss 2", 20, ["epoch 1  loss 2"]),
        ("abcdefgh", 3, ["abc", "def", "gh"]),
        ("_starts", 20, ["_starts"]),
        ("scale=[0.15, 0.2])", 14, ["scale=", "[0.15, 0.2])"]),
        ("weights=[1.0, 0.7, 0.5]", 13, ["weights=[1.0,", "0.7, 0.5]"]),
        ("基準基準", 5, ["基準", "基準"]),
    ],
)
def test_lines_break_between_words_then_at_joints_then_anywhere(text: str, width: int, lines: list[str]) -> None:
    assert wrap(text, width) == lines


def test_a_listing_has_its_texts_beside_the_names() -> None:
    rows = {"run folder": "runs/" + "a-long-name-of-a-run/" * 6, "time": "3 s"}
    text = printed(60, lambda console: print_listing(rows, console))
    assert_lines_fit(text, 60)
    lines = text.splitlines()
    assert all(line.startswith(" " * 12) for line in lines[1:-1])
    assert lines[-1] == "time        3 s"


def test_a_note_is_indented_below_its_dash() -> None:
    text = printed(30, lambda console: print_wrapped("some words " * 8, console, first="- ", rest="  "))
    assert_lines_fit(text, 30)
    assert all(line.startswith(("- ", "  ")) for line in text.splitlines())
