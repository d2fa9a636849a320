"""The files of a report and its page."""

from __future__ import annotations

import base64
import dataclasses
import html
import io
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from jepa_lab.errors import RunFolderError
from jepa_lab.reports.content import ReportInput
from jepa_lab.reports.report import write_report
from tests.unit.reports.frames import METRIC, NASTY_NAMES, make_content, make_search, set_trial

_VOID = {"meta", "link", "source", "img", "wbr"}


class Page(HTMLParser):
    """Tags with their attributes, the text that a reader sees, and whether every tag is closed."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words = ""
        self.headings: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in {"script", "style"}:
            self.words += data
        if self.open and self.open[-1] == "h2":
            self.headings.append(data)

    def attributes(self, tag: str) -> list[dict[str, str | None]]:
        """Of every such tag."""
        return [attributes for name, attributes in self.tags if name == tag]


def nasty_content() -> ReportInput:
    """Odd names everywhere, and a failed trial with an odd error."""
    script = "</script><script>alert(1)</script>"
    content = make_content(NASTY_NAMES, 2, title=f"title {script}", notes=(f"note {script}", "commit <i>0</i>"))
    content = dataclasses.replace(content, changed={NASTY_NAMES[1]: {"masker.name": f"value {script}"}})
    return set_trial(
        content,
        NASTY_NAMES[2],
        1,
        status="FAILED",
        error=f'error {script} "onload=alert(1) \x00\udc80',
        run_folder="a<b>&c",
    )


@pytest.fixture(scope="module")
def nasty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("nasty")
    write_report(nasty_content(), folder)
    return folder


@pytest.fixture(scope="module")
def page(nasty: Path) -> Page:
    return Page((nasty / "report.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def of_search(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Path]]:
    """The folder of a search's report, and what `write_report` says that it wrote."""
    folder = tmp_path_factory.mktemp("search") / "new" / "folder"
    return folder, write_report(make_search(), folder)


def test_a_report_is_its_files_and_nothing_else(of_search: tuple[Path, list[Path]]) -> None:
    folder, written = of_search
    there = {path for path in folder.rglob("*") if path.is_file()}
    assert set(written) == there
    assert {path.name for path in there} == {
        *("table.md", "table.tex", "table.csv", "trials.csv", "report.html"),
        *("means.png", "curves.png", "cost.png", "monitors.png", "history.png", "importances.png", "parallel.png"),
    }
    assert "Best points of the search" in (folder / "table.md").read_text()


def test_names_errors_and_paths_are_shown_and_never_markup(page: Page) -> None:
    assert page.open == []
    for name in NASTY_NAMES:
        assert name in page.words
    assert "error </script><script>alert(1)</script>" in page.words
    assert "a<b>&c" in page.words
    assert len(page.attributes("script")) == 1
    assert not page.attributes("b")
    assert not page.attributes("i")
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)


def test_the_page_needs_no_network_and_no_other_file(nasty: Path, page: Page) -> None:
    for _, attributes in page.tags:
        for name in ("src", "srcset", "href"):
            value = attributes.get(name)
            assert value is None or value.startswith(("data:", "#")) or (nasty / value).is_file()
    links = {each["href"] for each in page.attributes("a") if not (each["href"] or "").startswith("#")}
    assert links == {"table.csv", "trials.csv"}, "tables to take along; the page shows without them"
    text = (nasty / "report.html").read_text(encoding="utf-8")
    assert "@import" not in text
    assert "url(" not in text
    policy = next(each["content"] for each in page.attributes("meta") if "http-equiv" in each)
    assert policy is not None
    assert "default-src 'none'" in policy


def test_the_page_can_be_read_on_a_phone_and_by_a_screen_reader(page: Page) -> None:
    assert {"name": "viewport", "content": "width=device-width, initial-scale=1"} in page.attributes("meta")
    assert page.attributes("html") == [{"lang": "en"}]
    assert len(page.attributes("caption")) == len(page.attributes("table")) == 4
    regions = [each for each in page.attributes("div") if each.get("class") == "scroll"]
    assert all(each["tabindex"] == "0" and each["role"] == "region" and each["aria-label"] for each in regions)
    assert all(len(each["alt"] or "") > 40 for each in page.attributes("img"))
    assert {each["scope"] for each in page.attributes("th")} == {"col", "row"}
    assert {each["role"] for each in page.attributes("td")} == {"cell"}  # kept where a phone lays no table out
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    anchors = [each["href"] or "" for each in page.attributes("a") if not (each["href"] or "").endswith(".csv")]
    assert all(anchor[1:] in ids for anchor in anchors)
    assert page.attributes("a")[0]["class"] == "skip"


def test_every_figure_is_there_for_light_and_for_dark(page: Page) -> None:
    def brightness(data: str | None) -> float:
        assert data is not None
        with Image.open(io.BytesIO(base64.b64decode(data.split(",")[1]))) as picture:
            return float(picture.convert("L").resize((1, 1)).getpixel((0, 0)))  # type: ignore[arg-type]

    light, sources = page.attributes("img"), page.attributes("source")
    assert len(light) == 4
    assert [each["media"] for each in sources[:3]] == [
        "(max-width: 40rem) and (prefers-color-scheme: dark)",
        "(max-width: 40rem)",
        "(prefers-color-scheme: dark)",
    ]
    assert [len(sources), brightness(light[0]["src"]) > 200] == [12, True]
    assert [brightness(each["srcset"]) > 128 for each in sources[:3]] == [False, True, False]
    # Drawn for a phone, rather than made smaller: the letters stay as large.
    assert [int(each["width"] or 0) < 450 for each in sources[:3]] == [True, True, False]


def test_the_page_holds_table_footnotes_trials_plan_and_conditions(page: Page) -> None:
    assert page.headings == ["Table", "Figures", "Monitors without labels", "Trials", "Plan", "Conditions"]
    for words in ("Brackets are 95% intervals", "FAILED", "differs from the baseline in", "commit <i>0</i>", METRIC):
        assert words in page.words


def test_the_same_content_is_the_same_report(tmp_path: Path) -> None:
    content = make_content(num_seeds=2)
    content = dataclasses.replace(content, curves=content.curves.iloc[:0])
    ones, twos = (write_report(content, tmp_path / name) for name in ("one", "two"))
    for one, two in zip(ones, twos, strict=True):
        assert one.read_bytes() == two.read_bytes(), one.name


def test_a_sweep_without_any_trial_has_a_report_and_figures_of_an_earlier_one_go(tmp_path: Path) -> None:
    content = make_content(num_seeds=2)
    (tmp_path / "figures").mkdir()
    for name in ("means.png", "my own.png"):
        (tmp_path / "figures" / name).write_bytes(b"old")
    empty = dataclasses.replace(content, trials=content.trials.iloc[:0], curves=content.curves.iloc[:0])
    written = write_report(empty, tmp_path)
    assert [path.name for path in written] == ["table.md", "table.tex", "table.csv", "trials.csv", "report.html"]
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["my own.png"]
    assert "Trials: none yet." in (tmp_path / "report.html").read_text()


def test_only_winner_and_baseline_of_a_search_have_test_numbers_in_the_files(
    of_search: tuple[Path, list[Path]],
) -> None:
    lines = (of_search[0] / "trials.csv").read_text().splitlines()
    assert {line.split(",")[0] for line in lines if "test_accuracy" in line} == {"base", "winner"}


def test_a_folder_that_cannot_be_made_is_an_error_for_the_user(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    content = make_content(num_seeds=1)
    with pytest.raises(RunFolderError, match="choose another folder"):
        write_report(dataclasses.replace(content, trials=content.trials.iloc[:0]), tmp_path / "file")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
def test_a_click_on_a_heading_sorts_the_table_in_a_browser(tmp_path: Path) -> None:
    write_report(make_content(("base", "low", "high"), 2, (0.0, -0.1, 0.1)), tmp_path)
    click = '<script>document.querySelectorAll("#table th button")[3].click()</script></body>'
    text = (tmp_path / "report.html").read_text().replace("</body>", click)
    (tmp_path / "clicked.html").write_text(text)
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    done = subprocess.run(
        [*command, "--dump-dom", (tmp_path / "clicked.html").as_uri()],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    names = re.findall(r'<th scope="row"[^>]*>.*?<span>(.*?)</span></th>', done.stdout)[:5]
    assert names == ["high", "baseline: base", "control: raw pixels", "low", "control: random encoder"]
    assert len(re.findall(r'<th [^>]*aria-sort="descending"', done.stdout)) == 1


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="chromium is not installed")
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_is_cut_off_at_the_width_of_a_phone_and_of_a_desktop(nasty: Path, tmp_path: Path, width: int) -> None:
    # A window of chromium's has a smallest width, a frame has none.
    text = (nasty / "report.html").read_text(encoding="utf-8")
    measure = """<script>addEventListener("load", () => {
      const wide = Array.from(document.querySelectorAll("body *:not(.skip):not(.said)"))
        .filter((each) => each.getBoundingClientRect().right > innerWidth + 1 || each.scrollWidth > innerWidth);
      parent.postMessage(JSON.stringify([innerWidth, wide.map((each) => each.outerHTML.slice(0, 60))]), "*");
    });</script></body>"""
    (tmp_path / "page.html").write_text(text.replace("</body>", measure), encoding="utf-8")
    (tmp_path / "frame.html").write_text(
        f"<iframe src='page.html' style='width:{width}px;height:800px;border:0'></iframe><pre></pre>"
        "<script>onmessage = (said) => { document.querySelector('pre').textContent = said.data; }</script>"
    )
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    done = subprocess.run(
        [*command, "--virtual-time-budget=8000", "--dump-dom", (tmp_path / "frame.html").as_uri()],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    found = re.search(r"<pre>(.*?)</pre>", done.stdout, re.DOTALL)
    assert found is not None
    assert json.loads(html.unescape(found[1])) == [width, []]
