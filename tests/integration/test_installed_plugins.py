"""What a package brings beside components of a pipeline: found by functions and commands that read no pipeline."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import jepa_lab
from jepa_lab.interop.export import ExportRequest, export_run
from jepa_lab.tracking.run_folder import RunFolder
from tests.integration.pipelines import TINY
from tests.integration.test_cli import invoke

PACKAGE = '''\
"""A kind of source, a format of features and an export format."""

from jepa_lab.feature_files.formats.base import FEATURE_FORMATS, FeatureFormat
from jepa_lab.interop.exports.base import EXPORT_FORMATS, ExportFormat, Usage
from jepa_lab.testing.export_formats import encoder_parts
from jepa_lab.weights.foreign_weights import ForeignEncoder
from jepa_lab.weights.sources.base import WEIGHT_SOURCES, WeightSource


@WEIGHT_SOURCES.register("drawer", summary="An encoder out of a drawer.", source="test")
class Drawer(WeightSource):
    """Always the same one."""

    def recognises(self, text, context):
        return text.startswith("drawer:")

    def load(self, text, context):
        return ForeignEncoder(encoder_parts("fixed positions"), text, (), knows_normalization=True)


@FEATURE_FORMATS.register("tsv", summary="A line an image.", source="test")
class Tsv(FeatureFormat):
    """Path and features with tabs between them."""

    def write(self, table, path):
        with open(path, "w", encoding="utf-8") as file:
            for paths, features in table.parts:
                for name, row in zip(paths, features):
                    file.write("\\t".join([name, *(repr(float(each)) for each in row.flatten())]) + "\\n")


@EXPORT_FORMATS.register("nothing", summary="Holds no encoder.", source="test")
class Nothing(ExportFormat):
    """Refuses them all."""

    def objection(self, parts):
        return "this format holds no encoder at all; choose another one"

    def write(self, parts, folder):
        raise AssertionError

    def features(self, folder, images):
        raise AssertionError

    def usage(self):
        return Usage("none", "FOLDER")
'''


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site = tmp_path / "site"
    (site / "cabinet").mkdir(parents=True)
    (site / "cabinet" / "__init__.py").write_text(PACKAGE)
    metadata = site / "cabinet-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: cabinet\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[jepa_lab.components]\ncabinet = cabinet\n")
    monkeypatch.syspath_prepend(site)
    monkeypatch.delitem(sys.modules, "cabinet", raising=False)


def test_an_installed_source_and_format_are_found_from_python_and_from_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (14, 12, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")
    jepa_lab.features("drawer:1", tmp_path / "photos", tmp_path / "a.tsv", say=lambda _: None)
    result = invoke("features", "drawer:1", tmp_path / "photos", "--out", tmp_path / "b.tsv")
    assert result.exit_code == 0, result.output
    lines = (tmp_path / "a.tsv").read_text().splitlines()
    assert [line.split("\t")[0] for line in lines] == ["0.png", "1.png", "2.png"]
    assert (tmp_path / "b.tsv").read_text().splitlines() == lines
    encoder = jepa_lab.load_encoder("drawer:1")
    assert float(lines[1].split("\t")[1]) == pytest.approx(encoder.encode(tmp_path / "photos" / "1.png")[0, 0].item())


def test_an_installed_export_format_is_found(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "runs", "run", "0123456789", 0, TINY)
    with pytest.raises(jepa_lab.JepaLabError, match=r"run\.json is missing"):  # which is read after the format is known
        export_run(folder, ExportRequest("nothing"), tmp_path / "out")
