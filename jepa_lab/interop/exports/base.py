"""What an export format is: a folder that another library reads, and the way to read it back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from torch import Tensor

from jepa_lab.registry import Component, ComponentParams, Registry
from jepa_lab.weights.encoder_parts import EncoderParts


@dataclass(frozen=True)
class Usage:
    """How an export is used, for its model card.

    Attributes:
        library: as Hugging Face's `library_name`.
        code: Python that turns an image file into features, with `FOLDER` for the place of the export.
    """

    library: str
    code: str


class ExportFormat(Component[None], ABC):
    """Writes an encoder for another library.

    Attributes:
        packages: that must be importable, by their names on the package index.
    """

    packages: ClassVar[tuple[str, ...]] = ()

    def __init__(self, params: ComponentParams) -> None:
        self.params = params

    def objection(self, parts: EncoderParts) -> str | None:
        """What of this encoder the format cannot hold and what to do instead, or None where it holds all."""
        return None

    @abstractmethod
    def write(self, parts: EncoderParts, folder: Path) -> None:
        """Write the encoder and how images are prepared into an empty folder."""

    @abstractmethod
    def features(self, folder: Path, images: Tensor) -> Tensor:
        """What the other library computes from the files that `write` wrote.

        Args:
            images: [n, C, H, W] uint8, of the encoder's size.
        Returns:
            [n, N, D] float32 of each patch.
        """

    @abstractmethod
    def usage(self) -> Usage:
        """How the export is used."""


EXPORT_FORMATS: Registry[ExportFormat] = Registry("export_format", ExportFormat)

ROTARY = (
    "the encoder has rotary positions, which {library} has no place for; export it to safetensors or onnx, or train "
    "with encoder.position=sincos or learned"
)
