"""NumPy's archive: `numpy.load(file)["features"]`."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from jepa_lab.feature_files.formats.base import FEATURE_FORMATS, FeatureFormat, FeatureTable


@FEATURE_FORMATS.register(
    "npz", summary="NumPy's archive with the arrays paths, features and description.", source="NumPy"
)
class NpzFormat(FeatureFormat):
    """Arrays are written into the archive as they come, uncompressed."""

    def write(self, table: FeatureTable, path: Path) -> None:
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            for name, content in (("paths", list(table.paths)), ("description", table.description)):
                with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                    np.lib.format.write_array(file, np.array(content, dtype=np.str_), allow_pickle=False)
            with archive.open("features.npy", "w", force_zip64=True) as file:
                header = {"descr": "<f4", "fortran_order": False, "shape": table.shape}
                np.lib.format.write_array_header_2_0(file, header)
                for _, features in table.parts:
                    file.write(np.ascontiguousarray(features, "<f4").data)
