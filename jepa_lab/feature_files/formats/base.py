"""What a format of features is: a table that is written without ever being held in memory as a whole."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from jepa_lab.errors import ConfigError
from jepa_lab.registry import Component, ComponentParams, Registry


class Parts(Protocol):
    """Rows of the table in order, read from the disk part by part."""

    def __iter__(self) -> Iterator[tuple[Sequence[str], np.ndarray]]:
        """Paths of some images, and their features [n, D] or [n, N, D] float32."""


@dataclass(frozen=True)
class FeatureTable:
    """The features of many images.

    Attributes:
        paths: of all images, relative to their folder, with slashes.
        shape: of the features of all: (n, D), or (n, N, D) of patches in raster order.
        description: JSON text about source and settings.
    """

    paths: Sequence[str]
    shape: tuple[int, ...]
    description: str
    parts: Parts


class FeatureFormat(Component[None], ABC):
    """Writes a table of features; registered under the ending of its files."""

    def __init__(self, params: ComponentParams) -> None:
        self.params = params

    @abstractmethod
    def write(self, table: FeatureTable, path: Path) -> None:
        """Write a whole file, reading one part after another."""


FEATURE_FORMATS: Registry[FeatureFormat] = Registry("feature_format", FeatureFormat)


def format_of(path: Path) -> FeatureFormat:
    """The format that the ending of a file means.

    Raises:
        ConfigError: it is none of the known ones.
    """
    name = path.suffix.removeprefix(".").lower()
    if name not in FEATURE_FORMATS:
        known = ", ".join(f".{each}" for each in FEATURE_FORMATS.names())
        raise ConfigError(f"{path} must end with one of {known}, which says the format; give it one of these endings")
    entry = FEATURE_FORMATS.get(name)
    return entry.component(entry.config_type())
