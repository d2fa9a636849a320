"""What a user may do with the package, and how it is named: licence, citation, version, type annotations."""

from __future__ import annotations

import hashlib
import importlib.resources
import re
import tomllib
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

import jepa_lab

ROOT = Path(__file__).parents[2]
# Of the terms alone: https://www.apache.org/licenses/LICENSE-2.0.txt up to its appendix, without white space.
APACHE_2_TERMS = "c3716932c5840f8354d59b26fad06bc508567480da225392ab9b982ab4bde9b3"


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def citation() -> dict[str, Any]:
    return YAML(typ="safe").load(ROOT / "CITATION.cff")


def test_the_license_is_the_unchanged_apache_license() -> None:
    terms, end, appendix = (ROOT / "LICENSE").read_text().partition("END OF TERMS AND CONDITIONS")
    assert hashlib.sha256("".join((terms + end).split()).encode()).hexdigest() == APACHE_2_TERMS
    assert "Copyright 2026 The jepa-lab authors" in appendix


def test_package_and_citation_name_the_license_and_the_version() -> None:
    assert (project()["license"], project()["license-files"]) == ("Apache-2.0", ["LICENSE"])
    assert citation()["license"] == "Apache-2.0"
    assert project()["version"] == citation()["version"] == jepa_lab.__version__


def test_the_citation_has_what_its_format_requires() -> None:
    assert {"cff-version", "message", "title", "authors"} <= citation().keys()
    assert citation()["authors"] == project()["authors"] == [{"name": "The jepa-lab authors"}]


def test_type_checkers_see_the_annotations_of_the_package() -> None:
    assert importlib.resources.files("jepa_lab").joinpath("py.typed").is_file()
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert "py.typed" in setuptools["package-data"]["jepa_lab"]


def test_the_changelog_lists_this_version_below_what_is_unreleased() -> None:
    headings = re.findall(r"^## \[(.+?)\](.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert [name for name, _ in headings][:2] == ["Unreleased", jepa_lab.__version__]
    assert all(re.fullmatch(r" - \d{4}-\d{2}-\d{2}", date) for _, date in headings[1:])
