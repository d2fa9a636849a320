"""The rule that judges a run collapsed, from its monitors."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from pydantic import Field

from jepa_lab.registry import ComponentParams


class CollapseSettings(ComponentParams):
    """When features count as having stopped depending on the image."""

    variance_fraction: float = Field(
        0.25,
        gt=0,
        lt=1,
        description="Suspicious: image_variance_ratio is at most this share of its highest value so far.",
    )
    rank_fraction: float = Field(
        0.5, gt=0, lt=1, description="And: RankMe - 1 is at most this share of its highest value so far."
    )
    patience: int = Field(
        3, ge=1, strict=True, description="Suspicious probe epochs in a row after which a run is marked collapsed."
    )


CollapseStatus = Literal["healthy", "warned", "collapsed"]


@dataclass
class _Memory:
    """What the detector remembers of earlier probe epochs.

    Attributes:
        loss: validation loss at the epoch of the highest variance ratio; None before the first epoch.
        highest_rank: of RankMe - 1, the effective directions beside the one that all images share.
    """

    highest_variance_ratio: float = 0.0
    loss: float | None = None
    highest_rank: float = 0.0
    suspicious_epochs: int = 0
    collapsed: bool = False


class CollapseDetector:
    """Judges from the monitors of each probe epoch whether features stop depending on the image.

    The rule: an epoch is suspicious when the loss is lower than at the epoch at which the features depended on the
    image most (epoch 0 is one of them), although little is left of that dependence, in size and in directions. The
    first suspicious epoch is a warning, which an unsuspicious one clears; `patience` in a row mark the run for good.
    """

    def __init__(self, settings: CollapseSettings) -> None:
        self.settings = settings
        self._memory = _Memory()

    def observe(self, *, validation_loss: float, image_variance_ratio: float, rankme: float) -> CollapseStatus:
        """Take in the monitors of a probe epoch; the first call is epoch 0.

        Args:
            validation_loss: on fixed images and masks.
            image_variance_ratio: of the patch features. rankme: of the pooled features.
        """
        memory, rank = self._memory, rankme - 1
        if memory.loss is None or image_variance_ratio > memory.highest_variance_ratio:
            memory.highest_variance_ratio, memory.loss = image_variance_ratio, validation_loss
        memory.highest_rank = max(memory.highest_rank, rank)
        suspicious = validation_loss < memory.loss and self._is_little_left(image_variance_ratio, rank)
        memory.suspicious_epochs = memory.suspicious_epochs + 1 if suspicious else 0
        memory.collapsed = memory.collapsed or memory.suspicious_epochs >= self.settings.patience
        return self.status

    def _is_little_left(self, image_variance_ratio: float, rank: float) -> bool:
        memory, settings = self._memory, self.settings
        return (
            image_variance_ratio <= settings.variance_fraction * memory.highest_variance_ratio
            # The ratio alone also falls where features begin to encode the position beside the image.
            and rank <= settings.rank_fraction * memory.highest_rank
        )

    @property
    def status(self) -> CollapseStatus:
        """After the last probe epoch."""
        if self._memory.collapsed:
            return "collapsed"
        return "warned" if self._memory.suspicious_epochs else "healthy"

    @property
    def collapsed(self) -> bool:
        """Whether the run is marked."""
        return self._memory.collapsed

    def state(self) -> dict[str, Any]:
        """Memory for a checkpoint, as JSON values."""
        return asdict(self._memory)

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a `state`."""
        self._memory = _Memory(**state)
