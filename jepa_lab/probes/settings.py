"""What a user chooses about the probe."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from jepa_lab.registry import ComponentParams


class ProbeSettings(ComponentParams):
    """The probe of a frozen encoder, and the cheap one beside the training."""

    encoder: Literal["target", "context"] = Field(
        "target", description="Which encoder is probed: the moving average (target) or the trained one (context)."
    )
    layers: Literal["last", "last_four"] = Field(
        "last", description="Features of the last block, or of the last four side by side."
    )
    c_grid: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0),
        min_length=1,
        description="Inverse penalties C of the logistic regression, increasing; the validation split chooses one.",
    )
    max_iterations: int = Field(
        3000, ge=1, le=1_000_000, strict=True, description="Most L-BFGS iterations of one fit; reaching it is reported."
    )
    knn_neighbors: int = Field(20, ge=1, strict=True, description="Neighbours that vote in the k-NN probe.")
    every_epochs: int = Field(
        5, ge=1, strict=True, description="Epochs between two cheap probes on the validation split."
    )
    online_max_images: int = Field(
        10_000, ge=1, strict=True, description="Most training images of the cheap probe (a fixed stratified subset)."
    )
    score_test: bool = Field(
        True, strict=True, description="Score the test split at the end; a search does so for its winner alone."
    )
    batch_size: int = Field(512, ge=1, strict=True, description="Images that features are extracted from at once.")

    @model_validator(mode="after")
    def _check(self) -> ProbeSettings:
        if any(low >= high for low, high in zip(self.c_grid, self.c_grid[1:], strict=False)):
            raise ValueError(f"c_grid must be increasing without repetition, got {self.c_grid}")
        return self

    @property
    def num_layers(self) -> int:
        """How many of the last blocks `layers` means."""
        return {"last": 1, "last_four": 4}[self.layers]
