"""What `jepa-lab list` shows of the registries, and the page that is made of it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Annotated, Literal

import click.testing
import pytest
from pydantic import Field

from jepa_lab import catalogue as catalogue_module
from jepa_lab.catalogue import catalogue, catalogue_as_markdown, print_catalogue
from jepa_lab.cli import main
from jepa_lab.registry import FAMILIES, ComponentParams, Registry
from tests.unit.tables.reading import WIDTHS, assert_lines_fit

PAGE = Path(__file__).parents[2] / "docs" / "components.md"


def listed(*arguments: str) -> str:
    result = click.testing.CliRunner().invoke(main, ["list", *arguments], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_the_shipped_page_is_current() -> None:
    assert listed("--markdown") == PAGE.read_text(), "run `make schema`"


@pytest.mark.parametrize("form", ["--markdown", "--json"])
def test_every_component_is_shown_with_summary_source_and_parameters(form: str) -> None:
    text = listed(form) if form == "--markdown" else json.dumps(json.loads(listed(form)), ensure_ascii=False)
    text = text.replace("\\<", "<").replace("\\|", "|")
    shipped = [(family, entry) for family in FAMILIES.values() for entry in family]
    assert {family.family for family, _ in shipped} >= {"masker", "augmentation", "executor", "tracker"}
    for family, entry in shipped:
        assert family.family in text
        for part in (entry.name, entry.summary, entry.source, *entry.params_type.model_fields):
            assert part in text
        assert all(str(field.description) in text for field in entry.params_type.model_fields.values())


def test_a_section_says_what_its_family_is() -> None:
    page = PAGE.read_text()
    for family, registry in FAMILIES.items():
        section = page.split(f"\n## {family}\n")[1].split("\n### ")[0].strip()
        assert section.endswith(".")
        assert section in " ".join(str(registry.base.__doc__).split())


def test_a_family_alone_can_be_shown_as_a_page() -> None:
    page = listed("loss", "--markdown")
    assert re.findall(r"^## (.*)$", page, re.MULTILINE) == ["loss"]
    assert "### smooth_l1" in page


class Part(ComponentParams):
    """A section inside of parameters."""

    number: int = 1


class Odd:
    """Odd parameters, told
    in one sentence.

    More of it.
    """

    class Params(ComponentParams):
        count: int = Field(ge=1, lt=2**31, description="Needed, a|b.")
        share: float | None = Field(None, gt=0, le=0.5, description="May be null.")
        pair: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]] = Field((1, 2), description="Two.")
        names: tuple[str, ...] = Field(("a", "b"), description="Many.")
        mode: Literal["x", "y"] = Field("x", description="One of two, see <place>.")
        part: Part = Field(Part(), description="A section.")


@pytest.fixture
def odd_family(monkeypatch: pytest.MonkeyPatch) -> None:
    families: dict[str, Registry] = {}
    monkeypatch.setattr("jepa_lab.registry.FAMILIES", families)
    monkeypatch.setattr(catalogue_module, "FAMILIES", families)
    Registry("odd", Odd).register("only", summary="the only one", source="a test")(Odd)


@pytest.mark.usefixtures("odd_family")
def test_parameters_of_every_kind_are_told_in_words() -> None:
    (component,) = catalogue()["odd"]
    told = {f["name"]: (f["type"], f["range"], f["required"], f["default"]) for f in component["fields"]}
    assert told == {
        "count": ("integer", ">= 1, < 2147483648", True, None),
        "share": ("number | null", "> 0, <= 0.5", False, None),
        "pair": ("[number, number]", "> 0", False, [1.0, 2.0]),
        "names": ("[string, ...]", "", False, ["a", "b"]),
        "mode": ("x | y", "", False, "x"),
        "part": ("section", "", False, {"number": 1}),
    }


@pytest.mark.usefixtures("odd_family")
def test_the_page_keeps_bars_and_angles_from_breaking_its_tables() -> None:
    page = catalogue_as_markdown(catalogue())
    assert "\n## odd\n\nOdd parameters, told in one sentence.\n\n### only\n\nthe only one\n\nSource: a test\n" in page
    assert "| `count` | integer | required | >= 1, < 2147483648 | Needed, a\\|b. |" in page
    assert '| `mode` | x \\| y | "x" |  | One of two, see \\<place>. |' in page


@pytest.mark.usefixtures("odd_family")
def test_the_list_for_people_tells_type_range_and_default(capsys: pytest.CaptureFixture[str]) -> None:
    print_catalogue(catalogue())
    text = " ".join(capsys.readouterr().out.split())
    assert "count: integer >= 1, < 2147483648, required. Needed, a|b." in text
    assert "share: number | null > 0, <= 0.5, default null. May be null." in text


def test_a_long_summary_stays_under_its_component(capsys: pytest.CaptureFixture[str]) -> None:
    print_catalogue(catalogue("masker"))
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if line.strip() and not line.startswith("  ")] == ["masker"]


@pytest.mark.parametrize("width", WIDTHS)
def test_the_list_breaks_no_word_and_indents_what_goes_on(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    text = listed()
    assert_lines_fit(text, width)
    assert {len(line) - len(line.lstrip()) for line in text.splitlines() if line} <= {0, 2, 4, 6}
    words = set(text.split())
    for components in catalogue().values():
        for component in components:
            assert set(component["summary"].split()) <= words
            assert {word for field in component["fields"] for word in field["description"].split()} <= words
