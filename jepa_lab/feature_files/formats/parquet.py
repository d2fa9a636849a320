"""Parquet: `pandas.read_parquet(file)`, a row an image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from jepa_lab.feature_files.formats.base import FEATURE_FORMATS, FeatureFormat, FeatureTable


@FEATURE_FORMATS.register(
    "parquet",
    summary="A row an image: path, and features as a list of numbers, or of one such list for each patch.",
    source="Apache Parquet",
)
class ParquetFormat(FeatureFormat):
    """The lists have a fixed size; the description is metadata of the schema."""

    def write(self, table: FeatureTable, path: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        row: Any = pa.float32()
        for length in reversed(table.shape[1:]):
            row = pa.list_(row, length)
        schema = pa.schema([("path", pa.string()), ("features", row)], {"jepa_lab": table.description})
        with pq.ParquetWriter(path, schema) as writer:
            for paths, features in table.parts:
                cells = pa.array(features.reshape(-1))
                for length in reversed(table.shape[1:]):
                    cells = pa.FixedSizeListArray.from_arrays(cells, length)
                columns = [pa.array(list(paths), pa.string()), cells]
                writer.write_table(pa.Table.from_arrays(columns, schema=schema))
