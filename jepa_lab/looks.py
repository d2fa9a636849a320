"""How often the test split has been looked at with a run's encoder: every look makes the next one less of a test."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jepa_lab.config.pipeline import Pipeline
from jepa_lab.errors import RunFolderError
from jepa_lab.tracking.records import read_record
from jepa_lab.tracking.run_folder import RunFolder

_OF_THE_TEST_SPLIT = re.compile(r"[/_]test_[^/]*$")

KIND = "probe"
VERSION = 1

_Images = tuple[Any, Any]
"""Data set and root, as JSON values."""


@dataclass(frozen=True)
class Looks:
    """Looks at the test split of what is probed.

    Attributes:
        scored: whether this probe is one of them.
        looks: how often it has been scored with the run's encoder, this time included: at the end of the run, and by
            `jepa-lab probe --score-test`.
    """

    scored: bool
    looks: int

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self) | {"in_words": self.sentence()}

    def sentence(self) -> str:
        """For whoever reads the table."""
        if not self.scored:
            so_far = f"{self.looks} look{'' if self.looks == 1 else 's'} so far"
            return f"the test split was not scored ({so_far}); --score-test scores it, once per probe"
        if self.looks == 1:
            return "the test split was scored once per probe, the first look at it with this run's encoder"
        return (
            f"the test split was scored once per probe, which is look {self.looks} at it with this run's encoder; if "
            "anything was chosen after an earlier look, the accuracy on it is optimistic"
        )


def count_looks(folder: RunFolder, stored: Pipeline, pipeline: Pipeline) -> Looks:
    """Count the looks at the test split that `pipeline` probes.

    Another data set under `probe.data` has a count of its own; another division of the same one has not, as its test
    images may be the same. A file that cannot be read counts as a look: it may have been one. A look whose file was
    deleted is still in the counts of later files.

    Args:
        stored: what the run was trained and probed with.
    """
    images = _images_of(pipeline.model_dump(mode="json"), stored)
    own = _images_of(stored.model_dump(mode="json"), stored) == images and _run_has_looked(folder)
    earlier = [look for file in probe_files(folder) for look in _look_of(file, images, stored)]
    before = max([own + sum(scored for scored, _ in earlier), *(looks for _, looks in earlier)])
    return Looks(pipeline.probe.score_test, before + pipeline.probe.score_test)


def probe_files(folder: RunFolder) -> list[Path]:
    """`probes/<number>.json`, in the order of their numbers."""
    files = [file for file in (folder.path / "probes").glob("*.json") if file.stem.isdecimal()]
    return sorted(files, key=lambda file: int(file.stem))


def _run_has_looked(folder: RunFolder) -> bool:
    try:
        result = folder.read_result()
    except RunFolderError:
        return True
    return result is not None and _is_scored(result)


def _look_of(file: Path, images: _Images, stored: Pipeline) -> Iterator[tuple[bool, int]]:
    """Whether a probe scored the test split and how many looks it counted; nothing for other images."""
    try:
        content = read_record(file, KIND, VERSION)
    except RunFolderError:
        yield True, 0
        return
    if _images_of({"probe": content["settings"]}, stored) == images:
        # A jepa-lab that did not count wrote the accuracies alone.
        counted = content.get("test_split")
        yield _is_scored(content), counted["looks"] if counted else 0


def _is_scored(content: Mapping[str, Any]) -> bool:
    """Whether a result has a number of a probe on the test split."""
    metrics: Mapping[str, Any] = content["metrics"]
    return any(_OF_THE_TEST_SPLIT.search(name) and value is not None for name, value in metrics.items())


def _images_of(pipeline: Mapping[str, Any], stored: Pipeline) -> _Images:
    source = pipeline["probe"].get("data") or stored.data.model_dump(mode="json")
    return source["dataset"], source["root"]
