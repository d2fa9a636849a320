"""The small JSON files of a run folder: each names its format and version and carries a checksum."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from jepa_lab.errors import RunFolderError
from jepa_lab.tracking.atomic import write_json_atomically

T = TypeVar("T")
RESTORE = "restore it from a copy"
"""What to do about a damaged file."""

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
    plain = json.loads(json.dumps(_writable(dict(content)), allow_nan=False))
    record = {"format": f"jepa-lab {kind}", "format_version": version, **plain}
    write_json_atomically(path, {**record, "sha256": _checksum(record)})


def read_record(path: Path, kind: str, version: int) -> dict[str, Any]:
    """The content that `write_record` wrote, without the envelope.

    Raises:
        RunFolderError: if the file is missing, damaged, of another format or of another version.
    """
    return read_versioned_record(path, kind, (version,))[1]


def read_versioned_record(path: Path, kind: str, versions: Sequence[int]) -> tuple[int, dict[str, Any]]:
    """The version of a record, and the content that `write_record` wrote, without the envelope.

    Args:
        versions: those that the caller can read.
    Raises:
        RunFolderError: if the file is missing, damaged, of another format or of another version.
    """
    try:
        record = json.loads(path.read_bytes().decode("utf-8"), parse_constant=_refuse_constant)
        sound = isinstance(record, dict) and record.get("format") == f"jepa-lab {kind}"
        checksum = _checksum({key: held for key, held in record.items() if key != "sha256"}) if sound else None
    except FileNotFoundError:
        raise RunFolderError(f"{path} is missing; is {path.parent} a run folder of jepa-lab?") from None
    except (OSError, ValueError, RecursionError) as error:  # no such bytes, no JSON, or JSON that none of ours is
        raise RunFolderError(f"{path} cannot be read ({error})", remedy=RESTORE) from error
    if not sound:
        raise RunFolderError(f"{path} is not a {kind!r} file of jepa-lab", remedy=RESTORE)
    if record.get("sha256") != checksum:
        raise RunFolderError(f"{path} is damaged: its checksum does not match", remedy=RESTORE)
    version = record.get("format_version")
    if version not in versions:
        raise RunFolderError(
            f"{path} has format version {version}, this jepa-lab reads {' and '.join(map(str, versions))}; "
            "use the version of jepa-lab that wrote it"
        )
    return version, {key: value for key, value in record.items() if key not in _ENVELOPE}


def record_as(kind: type[T], content: Mapping[str, Any], path: Path) -> T:
    """The content of a record as a dataclass, with its types checked; a checksum only says that it is whole.

    Raises:
        RunFolderError: naming the first field that is missing, unknown or of another type.
    """
    unknown = set(content) - {each.name for each in dataclasses.fields(kind)}  # type: ignore[arg-type]
    if unknown:
        raise RunFolderError(f"{path} is damaged: unknown fields {sorted(unknown)}", remedy=RESTORE)
    try:
        return _adapter(kind).validate_python(content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(map(str, first["loc"]))
        raise RunFolderError(f"{path} is damaged: {field}: {first['msg']}", remedy=RESTORE) from error


def _adapter(kind: type[T]) -> TypeAdapter[T]:
    """What checks the types; it takes a hundred times as long to build as to use."""
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]


_ADAPTERS: dict[type[Any], TypeAdapter[Any]] = {}


def _refuse_constant(name: str) -> float:
    raise ValueError(f"it holds {name}, which JSON has not")


def named_float(value: float) -> float | str:
    """The value as JSON can hold it: NaN and infinities by name (JSON has none)."""
    return value if math.isfinite(value) else str(value)


def _writable(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _writable(held) for key, held in value.items()}
    if isinstance(value, (list, tuple)):
        return [_writable(held) for held in value]
    if isinstance(value, str):
        return _as_text(value)
    return named_float(value) if isinstance(value, float) else value


def _as_text(value: str) -> str:
    """Text that UTF-8 can hold: the names of files may come as bytes in disguise where the locale is ASCII."""
    try:
        return value.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:  # half of a letter, from somewhere else
        return value.encode("utf-8", "backslashreplace").decode("utf-8")


def _checksum(record: Mapping[str, Any]) -> str:
    canonical = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode("utf-8")).hexdigest()
