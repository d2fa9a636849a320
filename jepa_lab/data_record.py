"""What result.json says about the images of a run: how many each split has, and which files were left out."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from jepa_lab.build import PreparedData

_NAMED_FILES = 100


def data_record(data: PreparedData, probe_data: PreparedData) -> dict[str, Any]:
    """JSON values about what is trained on and, where the probe has images of its own, about those."""
    record = _about(data, "")
    return record if probe_data is data else record | _about(probe_data, "probe_")


def _about(data: PreparedData, prefix: str) -> dict[str, Any]:
    named = [image.name for image in data.skipped[:_NAMED_FILES]]
    images = {
        **asdict(data.counts),
        "in_words": data.counts.sentence(),
        "notes": list(data.told),
        "unread_files": dict(data.findings.unread),
    }
    return {f"{prefix}skipped_images": {"count": len(data.skipped), "files": named}, f"{prefix}images": images}
