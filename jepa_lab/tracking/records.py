"""The small JSON files of a run folder: each names its format and version and carries a checksum."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jepa_lab.errors import RunFolderError
from jepa_lab.tracking.atomic import write_json_atomically

_ENVELOPE = ("format", "format_version", "sha256")


def write_record(path: Path, kind: str, version: int, content: Mapping[str, Any]) -> None:
    """Write `content` atomically with its format name, its version and a SHA-256 over all of it.

    Args:
        kind: name of the format, such as "run".
        content: JSON values; NaN and infinities are written as the strings "nan", "inf" and "-inf". No key
            may be one of format, format_version, sha256.
    """
    clash = set(content) & set(_ENVELOPE)
    if clash:
        raise ValueError(f"keys {sorted(clash)} belong to the envelope of {path.name}")
    # Through JSON and back, so that the checksum is over what a reader will see.
    plain = json.loads(json.dumps(_named_floats(dict(content)), allow_nan=False))
    record = {"format": f"jepa-lab {kind}", "format_version": version, **plain}
    write_json_atomically(path, {**record, "sha256": _checksum(record)})


def read_record(path: Path, kind: str, version: int) -> dict[str, Any]:
    """The content that `write_record` wrote, without the envelope.

    Raises:
        RunFolderError: if the file is missing, damaged, of another format or of a newer version.
    """
    try:
        record = json.loads(path.read_bytes().decode("utf-8"))
    except FileNotFoundError:
        raise RunFolderError(f"{path} is missing; is {path.parent} a run folder of jepa-lab?") from None
    except (OSError, ValueError) as error:
        raise RunFolderError(f"{path} cannot be read ({error}); restore it from a copy") from error
    if not isinstance(record, dict) or record.get("format") != f"jepa-lab {kind}":
        raise RunFolderError(f"{path} is not a {kind!r} file of jepa-lab; restore it from a copy")
    if record.pop("sha256", None) != _checksum(record):
        raise RunFolderError(f"{path} is damaged: its checksum does not match; restore it from a copy")
    if record["format_version"] != version:
        raise RunFolderError(
            f"{path} has format version {record['format_version']}, this jepa-lab reads {version}; "
            "use the version of jepa-lab that wrote it"
        )
    return {key: value for key, value in record.items() if key not in _ENVELOPE}


def named_float(value: float) -> float | str:
    """The value as JSON can hold it: NaN and infinities by name (JSON has none)."""
    return value if math.isfinite(value) else str(value)


def _named_floats(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _named_floats(held) for key, held in value.items()}
    if isinstance(value, (list, tuple)):
        return [_named_floats(held) for held in value]
    return named_float(value) if isinstance(value, float) else value


def _checksum(record: Mapping[str, Any]) -> str:
    canonical = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode("utf-8")).hexdigest()
