"""Principal components of the target patches' pixels."""

from __future__ import annotations

import logging

import torch
from pydantic import Field
from torch import Tensor

from jepa_lab.errors import DataError, Key, Problem
from jepa_lab.grid import patchify
from jepa_lab.registry import ComponentParams
from jepa_lab.targets.base import TARGETS, ImageBatches, PatchTarget, TargetInputs

logger = logging.getLogger(__name__)


class PcaParams(ComponentParams):
    """Parameters of `pca`."""

    num_components: int | None = Field(
        None,
        ge=1,
        strict=True,
        description="Largest principal components that are predicted; null takes a quarter of a patch's numbers.",
    )
    num_images: int = Field(
        4096, ge=1, strict=True, description="Training images (or all) whose patches the components are fitted on."
    )


@TARGETS.register(
    "pca",
    summary="Principal components of the target patches' pixels, fitted on the training split; no target encoder.",
    source="Pearson 1901; the row 'PCA features' of an ablation of prediction targets",
)
class PcaTarget(PatchTarget):
    """Coefficients of (patch - mean) along the components with the largest variance.

    Mean and components are buffers: they are saved in the run's checkpoints with the weights.
    """

    Params = PcaParams
    params: PcaParams
    mean: Tensor
    components: Tensor
    variances: Tensor
    total_variance: Tensor

    def __init__(self, params: PcaParams, inputs: TargetInputs) -> None:
        super().__init__(params, inputs)
        count = max(1, inputs.patch_dim // 4) if params.num_components is None else params.num_components
        self.num_features = count
        self.register_buffer("mean", torch.zeros(inputs.patch_dim))  # [P]
        self.register_buffer("components", torch.zeros(inputs.patch_dim, count))  # [P, k]
        self.register_buffer("variances", torch.zeros(count))  # [k], largest first
        self.register_buffer("total_variance", torch.zeros(()))  # of all P components

    @classmethod
    def check(cls, params: PcaParams, known: TargetInputs) -> Problem | None:
        if params.num_components is not None and params.num_components > known.patch_dim:
            return Problem(
                Key("num_components"),
                f" must be at most the numbers of a patch ({known.num_channels} channel(s) x {known.patch_size} x "
                f"{known.patch_size} = {known.patch_dim}), got {params.num_components}; lower it",
            )
        return None

    @torch.no_grad()
    def fit(self, images: ImageBatches) -> None:
        """Eigenvectors of the covariance of the training images' patches, in double precision.

        Raises:
            DataError: fewer patches than the components need, some of which would then be any directions.
        """
        count, total, outer = 0, torch.zeros((), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
        for batch in images(self.params.num_images):
            patches = patchify(batch, self.inputs.patch_size).flatten(0, 1).double().cpu()  # [b * N, P]
            count += len(patches)
            total = total + patches.sum(dim=0)
            outer = outer + patches.T @ patches
        if count <= self.num_features:
            raise DataError(
                Key("num_components"),
                f"={self.num_features} needs more than {self.num_features} training patches, and the fit on at most ",
                Key("num_images"),
                f"={self.params.num_images} images has {count}; lower the first or raise the second",
            )
        mean = total / count
        covariance = outer / count - torch.outer(mean, mean)  # [P, P]
        variances, vectors = torch.linalg.eigh(covariance)  # ascending
        all_variance = variances.sum()
        variances, vectors = variances.flip(0)[: self.num_features], vectors.flip(1)[:, : self.num_features]
        # An eigenvector's sign is arbitrary: the entry of largest size is made positive.
        largest = vectors.abs().argmax(dim=0, keepdim=True)
        vectors = vectors * vectors.gather(0, largest).sign()
        for buffer, value in (
            (self.mean, mean),
            (self.components, vectors),
            (self.variances, variances),
            (self.total_variance, all_variance),
        ):
            buffer.copy_(value)
        logger.info(
            "target pca: %d components hold %.1f%% of the variance of %d training patches",
            self.num_features,
            100 * float(variances.sum() / all_variance.clamp(min=1e-30)),
            count,
        )

    def of_patches(self, patches: Tensor) -> Tensor:
        with torch.autocast(patches.device.type, enabled=False):  # half precision would round the targets
            return (patches - self.mean) @ self.components

    def reconstruct(self, coefficients: Tensor) -> Tensor:
        """The patches [..., P] that coefficients [..., k] stand for.

        Over the images of the fit, the mean squared distance to the patches is `total_variance - variances.sum()`.
        """
        return self.mean + coefficients @ self.components.T
