"""The rules that judge from a run's monitors whether its features collapse."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

from pydantic import Field

from jepa_lab.registry import ComponentParams

REMEDY = (
    "lower optimizer.learning_rate, let ema_momentum start higher, normalise the target, or add a regularizer (vicreg)"
)
"""What is worth trying after a collapse."""

_FEWEST = 8
"""Of fewer images, or of features with fewer possible directions, spread and rank say nothing."""


class CollapseSettings(ComponentParams):
    """When features count as collapsed. At each probe epoch, on the monitored images, four rules are asked:

    1. nothing of the image: `image_variance_ratio` is at most `variance_floor`;
    2. few directions: the centred RankMe is at most `rank_floor`;
    3. much less of the image than before: `image_variance_ratio` is at most `variance_fraction` of its highest value
       so far, and RankMe - 1 at most `rank_fraction` of its own;
    4. rank lost: the centred RankMe - 1 is at most `rank_fraction` of its highest value so far.

    Rules 1 to 3 warn at once, and mark the run as collapsed after `patience` probe epochs in a row. Rule 4 warns after
    `patience` probe epochs in a row, unless the rank has risen by `rank_recovery` since the first of them, and never
    marks: on photographs, encoders that learn well fall below half of a random encoder's rank and rise again. None of
    the rules looks at the loss.
    """

    variance_floor: float = Field(
        1e-4,
        ge=0,
        lt=1,
        description="Collapsed: image_variance_ratio is at most this; 0 only if images have the exact same features.",
    )
    rank_floor: float = Field(
        2.0,
        ge=1,
        description="Collapsed: the centred RankMe of the monitored images (monitor/rankme_centred) is at most this. "
        "Not asked where fewer than 8 directions are possible.",
    )
    variance_fraction: float = Field(
        0.25,
        gt=0,
        lt=1,
        description="Collapsed: image_variance_ratio is at most this share of its highest value so far, and RankMe - 1 "
        "at most rank_fraction of its own.",
    )
    rank_fraction: float = Field(
        0.5,
        gt=0,
        lt=1,
        description="Rank lost: the centred RankMe - 1 is at most this share of its highest value so far.",
    )
    rank_recovery: float = Field(
        0.05,
        ge=0,
        description="Lost rank is not warned of while the centred RankMe - 1 is higher by more than this share than "
        "when it was first seen to be lost.",
    )
    patience: int = Field(
        3,
        ge=1,
        strict=True,
        description="Probe epochs in a row after which a run is marked collapsed, or warned of lost rank.",
    )


CollapseStatus = Literal["healthy", "warned", "collapsed"]


@dataclass(frozen=True)
class Observation:
    """The monitors of one probe epoch.

    Attributes:
        image_variance_ratio: of the patch features. rankme, rankme_centred: of the pooled features.
        num_images: that were monitored. width: of a feature vector.
    """

    image_variance_ratio: float
    rankme: float
    rankme_centred: float
    num_images: int
    width: int

    @property
    def most_directions(self) -> int:
        """Along which so many images can differ at most."""
        return min(self.num_images - 1, self.width)


@dataclass(frozen=True)
class Verdict:
    """What the detector says after a probe epoch.

    Attributes:
        reasons: the rules that hold, one clause each, with their numbers; of a marked run whose features have
            recovered, those that held last.
        outlook: what follows from them, as a clause; empty for a healthy run.
    """

    status: CollapseStatus
    reasons: tuple[str, ...]
    outlook: str

    def sentence(self) -> str | None:
        """Reasons and outlook; None for a healthy run."""
        return None if self.status == "healthy" else "; ".join((*self.reasons, self.outlook))


@dataclass
class _Memory:
    """What the detector remembers of earlier probe epochs.

    Attributes:
        highest_rank, highest_rank_centred: of RankMe - 1; uncentred, the one direction is the mean of all images.
        collapsed_epochs: in a row in which rule 1, 2 or 3 held. rank_lost_epochs: the same for rule 4.
        rank_when_lost: centred RankMe - 1 at the first of the latter.
        reasons: see `Verdict`.
    """

    highest_variance_ratio: float = 0.0
    highest_rank: float = 0.0
    highest_rank_centred: float = 0.0
    collapsed_epochs: int = 0
    rank_lost_epochs: int = 0
    rank_when_lost: float = 0.0
    collapsed: bool = False
    reasons: list[str] = field(default_factory=list)


class CollapseDetector:
    """Judges from the monitors of each probe epoch whether features collapse; `CollapseSettings` states the rules.

    A warning is withdrawn as soon as no rule holds; a mark stays.
    """

    def __init__(self, settings: CollapseSettings) -> None:
        self.settings = settings
        self._memory = _Memory()

    def observe(self, seen: Observation) -> Verdict:
        """Take in a probe epoch; the first call is epoch 0."""
        memory = self._memory
        memory.highest_variance_ratio = max(memory.highest_variance_ratio, seen.image_variance_ratio)
        memory.highest_rank = max(memory.highest_rank, seen.rankme - 1)
        memory.highest_rank_centred = max(memory.highest_rank_centred, seen.rankme_centred - 1)
        found = (self._no_image(seen), self._few_directions(seen), self._less_image(seen))
        reasons = [reason for reason in found if reason is not None]
        memory.collapsed_epochs = memory.collapsed_epochs + 1 if reasons else 0
        lost = self._lost_rank(seen)
        if lost is not None:
            reasons.append(lost)
        memory.collapsed = memory.collapsed or memory.collapsed_epochs >= self.settings.patience
        if reasons or not memory.collapsed:
            memory.reasons = reasons
        return self.verdict()

    def _no_image(self, seen: Observation) -> str | None:
        floor = self.settings.variance_floor
        if seen.num_images < _FEWEST or seen.image_variance_ratio > floor:
            return None
        return (
            f"the features hardly depend on the image: the image variance ratio is {seen.image_variance_ratio:.2g}, "
            f"and collapse.variance_floor is {floor:g}"
        )

    def _few_directions(self, seen: Observation) -> str | None:
        floor = self.settings.rank_floor
        if seen.most_directions < _FEWEST or seen.rankme_centred > floor:
            return None
        return (
            f"the features of all images differ along few directions: the centred RankMe is {seen.rankme_centred:.3g} "
            f"of at most {seen.most_directions}, and collapse.rank_floor is {floor:g}"
        )

    def _less_image(self, seen: Observation) -> str | None:
        """The ratio alone also falls where features begin to encode the position beside the image."""
        memory, settings = self._memory, self.settings
        if (
            seen.num_images < _FEWEST
            or seen.image_variance_ratio > settings.variance_fraction * memory.highest_variance_ratio
            or seen.rankme - 1 > settings.rank_fraction * memory.highest_rank
        ):
            return None
        return (
            f"the features depend much less on the image than before: the image variance ratio is "
            f"{seen.image_variance_ratio:.2g} and was {memory.highest_variance_ratio:.2g}, RankMe is "
            f"{seen.rankme:.3g} and was {1 + memory.highest_rank:.3g}"
        )

    def _lost_rank(self, seen: Observation) -> str | None:
        """Counts the epochs, too; see rule 4."""
        memory, settings, rank = self._memory, self.settings, seen.rankme_centred - 1
        fraction = settings.rank_fraction
        if seen.most_directions < _FEWEST or rank > fraction * memory.highest_rank_centred:
            memory.rank_lost_epochs = 0
            return None
        memory.rank_lost_epochs += 1
        if memory.rank_lost_epochs == 1:
            memory.rank_when_lost = rank
        if memory.rank_lost_epochs < settings.patience or rank > (1 + settings.rank_recovery) * memory.rank_when_lost:
            return None
        return (
            f"the features have lost directions: the centred RankMe is {seen.rankme_centred:.3g} and was "
            f"{1 + memory.highest_rank_centred:.3g}, and collapse.rank_fraction is {fraction:g}"
        )

    def verdict(self) -> Verdict:
        """After the last probe epoch."""
        memory, patience = self._memory, self.settings.patience
        reasons = tuple(memory.reasons)
        if memory.collapsed:
            return Verdict("collapsed", reasons, "the run is marked collapsed")
        if memory.collapsed_epochs:
            left = patience - memory.collapsed_epochs
            more = "one more such probe epoch" if left == 1 else f"{left} more such probe epochs in a row"
            return Verdict("warned", reasons, f"after {more} the run is marked collapsed")
        if reasons:
            return Verdict("warned", reasons, f"so it has been for {memory.rank_lost_epochs} probe epochs in a row")
        return Verdict("healthy", (), "")

    @property
    def collapsed(self) -> bool:
        """Whether the run is marked."""
        return self._memory.collapsed

    def state(self) -> dict[str, Any]:
        """Memory for a checkpoint, as JSON values."""
        return asdict(self._memory)

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from a `state`; of that of an earlier jepa-lab, whose rule was another one, with what still counts."""
        known = {each.name for each in fields(_Memory)}
        self._memory = _Memory(**{name: value for name, value in state.items() if name in known})
