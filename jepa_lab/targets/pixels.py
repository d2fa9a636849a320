"""The pixels of the target patches."""

from __future__ import annotations

from torch import Tensor

from jepa_lab.registry import ComponentParams
from jepa_lab.targets.base import TARGETS, PatchTarget, TargetInputs


@TARGETS.register(
    "pixels",
    summary="The channel-normalised pixels of the target patches; no target encoder is run.",
    source="He et al. 2022, arXiv:2111.06377 (MAE), sec. 3",
)
class PixelsTarget(PatchTarget):
    """C * patch_size**2 numbers a patch, in the order of `patchify`: channel, row, column."""

    def __init__(self, params: ComponentParams, inputs: TargetInputs) -> None:
        super().__init__(params, inputs)
        self.num_features = inputs.patch_dim

    def of_patches(self, patches: Tensor) -> Tensor:
        return patches
