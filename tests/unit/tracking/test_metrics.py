"""metrics.jsonl: valid JSON, cut back to a checkpoint, torn rows dropped."""

from __future__ import annotations

import errno
import json
import math
import os
from pathlib import Path

import pytest

from jepa_lab.errors import RunFolderError, RunStopped
from jepa_lab.tracking.metrics import MetricsWriter, damage_before, metrics_frame, read_metrics


def _write(path: Path, steps: range, cursor: int | None = None) -> int:
    with MetricsWriter(path, cursor) as writer:
        for step in steps:
            writer.append(step, step / 10, {"train/loss": 1.0 / (step + 1)})
        return writer.sync()


def _steps(path: Path) -> list[int]:
    return [row.step for row in read_metrics(path)]


def test_rows_written_after_the_checkpoint_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    cursor = _write(path, range(5))
    at_checkpoint = path.read_bytes()
    _write(path, range(5, 9))
    assert cursor == len(at_checkpoint)
    MetricsWriter(path, cursor).close()
    assert path.read_bytes() == at_checkpoint
    _write(path, range(5, 7), cursor)
    assert _steps(path) == list(range(7))


def test_only_a_change_before_the_cursor_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with MetricsWriter(path, None) as writer:
        writer.append(1, 0.1, {"train/loss": 1.0})
        cursor, sha256 = writer.sync(), writer.sha256
        writer.append(2, 0.2, {"train/loss": 0.5})
    assert damage_before(path, cursor, sha256) is None
    content = path.read_bytes()
    path.write_bytes(content.replace(b"1.0", b"2.0"))
    assert "another SHA-256" in str(damage_before(path, cursor, sha256))
    path.write_bytes(content[: cursor - 1])
    assert f"{cursor - 1} of the {cursor} bytes" in str(damage_before(path, cursor, sha256))


def test_a_torn_row_is_dropped_wherever_it_was_torn(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    cursor = _write(path, range(2))
    _write(path, range(2, 3))
    whole = path.read_bytes()
    for length in range(cursor + 1, len(whole)):
        path.write_bytes(whole[:length])
        assert _steps(path) == [0, 1]
        MetricsWriter(path, None).close()
        assert path.read_bytes() == whole[:cursor]


def test_opening_without_a_cursor_keeps_all_rows(tmp_path: Path) -> None:
    _write(tmp_path / "m", range(3))
    _write(tmp_path / "m", range(3, 5))
    assert _steps(tmp_path / "m") == [0, 1, 2, 3, 4]


def test_every_row_is_readable_before_the_file_is_closed(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path / "m", None)
    writer.append(7, 0.5, {"a": 1})
    assert [(row.step, row.epoch, row.metrics) for row in read_metrics(tmp_path / "m")] == [(7, 0.5, {"a": 1.0})]
    writer.close()


def test_non_finite_values_and_gaps_survive_in_valid_json(tmp_path: Path) -> None:
    path = tmp_path / "m"
    with MetricsWriter(path, None) as writer:
        writer.append(0, 0, {"nan": math.nan, "inf": math.inf, "low": -math.inf, "gap": None})

    def refuse(constant: str) -> float:
        raise AssertionError(f"{constant} is not JSON")

    raw = json.loads(path.read_text(), parse_constant=refuse)["metrics"]
    assert raw == {"nan": "nan", "inf": "inf", "low": "-inf", "gap": None}
    (row,) = read_metrics(path)
    assert math.isnan(row.metrics["nan"] or 0)
    assert (row.metrics["inf"], row.metrics["low"], row.metrics["gap"]) == (math.inf, -math.inf, None)


@pytest.mark.parametrize("change", [lambda content: content[:-10], lambda content: content.replace(b"\n", b" ")])
def test_a_file_that_does_not_fit_the_cursor_is_refused(tmp_path: Path, change: object) -> None:
    path = tmp_path / "metrics.jsonl"
    cursor = _write(path, range(3))
    path.write_bytes(change(path.read_bytes()))  # type: ignore[operator]
    before = path.read_bytes()
    with pytest.raises(RunFolderError, match="restore"):
        MetricsWriter(path, cursor)
    assert path.read_bytes() == before


def test_a_damaged_row_is_named_by_its_place(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    first = _write(path, range(1))
    _write(path, range(1, 3))
    content = bytearray(path.read_bytes())
    content[first] = 0
    path.write_bytes(content)
    with pytest.raises(RunFolderError, match=f"byte {first} is damaged"):
        read_metrics(path)


def test_steps_do_not_go_back_and_no_metric_comes_twice_a_step(tmp_path: Path) -> None:
    with MetricsWriter(tmp_path / "m", None) as writer:
        writer.append(3, 0, {"a": 1})
        writer.append(3, 0, {"b": 1})
        with pytest.raises(ValueError, match="written twice at step 3"):
            writer.append(3, 0, {"a": 2})
        with pytest.raises(ValueError, match="step 2 come after"):
            writer.append(2, 0, {"a": 1})
    with MetricsWriter(tmp_path / "m", None) as again, pytest.raises(ValueError, match="written twice"):
        again.append(3, 0, {"b": 2})


def test_a_full_disk_stops_the_run_and_leaves_the_rows_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = MetricsWriter(tmp_path / "m", None)
    writer.append(0, 0, {"a": 1})

    class FullFile:
        """Takes half of a row, then has no space left."""

        def __init__(self, real: object) -> None:
            self.real, self.written = real, 0

        def write(self, data: bytes) -> int:
            if self.written:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            self.written = self.real.write(data[: len(data) // 2])  # type: ignore[attr-defined]
            return self.written

        def close(self) -> None:
            self.real.close()  # type: ignore[attr-defined]

    monkeypatch.setattr(writer, "_file", FullFile(writer._file))
    with pytest.raises(RunStopped, match="free space"):
        writer.append(1, 0, {"a": 1})
    writer.close()
    assert _steps(tmp_path / "m") == [0]


def test_the_frame_is_long_and_leaves_gaps_out(tmp_path: Path) -> None:
    with MetricsWriter(tmp_path / "m", None) as writer:
        writer.append(0, 0.0, {"a": 1, "b": None})
        writer.append(5, 0.5, {"a": 2, "b": 3})
    frame = metrics_frame(tmp_path / "m")
    assert list(frame.columns) == ["step", "epoch", "time", "name", "value"]
    assert frame[["step", "epoch", "name", "value"]].to_numpy().tolist() == [
        [0, 0.0, "a", 1.0],
        [5, 0.5, "a", 2.0],
        [5, 0.5, "b", 3.0],
    ]


def test_a_missing_file_has_no_rows(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / "none") == []
