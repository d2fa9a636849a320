"""What a user chooses about the probe."""

from __future__ import annotations

import itertools
from typing import Annotated, Literal

from pydantic import Field, model_validator

from jepa_lab.errors import Key
from jepa_lab.registry import ComponentParams, broken_rule

LAYERS = {"last": 1, "last_four": 4}
"""How many of the last blocks each choice of `layers` means."""


class ProbeSettings(ComponentParams):
    """What all probes share, and the cheap one beside the training."""

    encoder: Literal["target", "context"] = Field(
        "target", description="Which encoder is probed: the moving average (target) or the trained one (context)."
    )
    both_encoders: bool = Field(
        False,
        strict=True,
        description="At the end measure the encoder that is not chosen, too; its metrics begin with other_encoder/.",
    )
    layers: Literal["last", "last_four"] = Field(
        "last", description="Features of the last block, or of the last four side by side."
    )
    levels: tuple[Annotated[int, Field(ge=1, strict=True)], ...] | None = Field(
        None,
        min_length=1,
        description="Levels of the hierarchy whose features stand side by side, ascending, 1 for the patches: each "
        "cell after a layer norm without learned scale and shift, as the targets are. Null reads the encoder alone.",
    )
    image_size: int | None = Field(
        None,
        ge=1,
        strict=True,
        description="Probe on images of this height and width, the encoder's positions taken to that patch grid; a "
        "multiple of encoder.patch_size. Null probes at data.image_size.",
    )
    crop_fraction: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Side of the centre square that is probed on, as a share of the picture's shorter side; 0.875 is "
        "the usual resize to 256 and crop of 224.",
    )
    every_epochs: int = Field(
        5, ge=1, strict=True, description="Epochs between two cheap probes on the validation split."
    )
    online_max_images: int = Field(
        10_000, ge=1, strict=True, description="Most training images of the cheap probe (a fixed stratified subset)."
    )
    score_test: bool = Field(
        True,
        strict=True,
        description="Score the test split at the end of the run; a search does so for its winner alone, and "
        "`jepa-lab probe` with --score-test alone.",
    )
    batch_size: int | None = Field(
        None,
        ge=1,
        strict=True,
        description="Images that features are extracted from at once. Null: 512 on a CPU; on a GPU 512 to 8192, by the "
        "size of encoder and images.",
    )

    @model_validator(mode="after")
    def _check_levels(self) -> ProbeSettings:
        if any(low >= high for low, high in itertools.pairwise(self.levels or ())):
            raise broken_rule(
                Key("levels"), f" must be ascending without repetition, got {list(self.levels or ())}; sort them"
            )
        return self

    @property
    def num_widths(self) -> int:
        """How many features of the encoder's width stand side by side."""
        return self.num_layers * (1 if self.levels is None else len(self.levels))

    @property
    def num_layers(self) -> int:
        """How many of the last blocks `layers` means."""
        return LAYERS[self.layers]
