"""What each target is: checked against sums written out, and by decoding what a model has learnt."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from sklearn.decomposition import PCA
from torch import Tensor

from jepa_lab.grid import Grid, patchify, unpatchify
from jepa_lab.losses.l2 import L2Loss, L2Params
from jepa_lab.maskers.base import Masks
from jepa_lab.maskers.patches import Patches
from jepa_lab.models.ijepa import IJepa
from jepa_lab.models.predictor import Predictor
from jepa_lab.models.sizes import ModelSize
from jepa_lab.models.vit import VisionTransformer, initialize_weights
from jepa_lab.positions.sincos import SinCosPosition
from jepa_lab.registry import ComponentParams
from jepa_lab.targets.base import Target, TargetInputs
from jepa_lab.targets.features import EncodedParams, FeaturesParams, FeaturesTarget
from jepa_lab.targets.normalized_pixels import NormalizedPixelsTarget
from jepa_lab.targets.pca import PcaParams, PcaTarget
from jepa_lab.targets.pixels import PixelsTarget
from jepa_lab.targets.pooled_features import PooledFeaturesTarget

GRID, SIZE = Grid(4, 4), ModelSize(24, 3, 3)
INPUTS = TargetInputs(embed_dim=24, depth=3, patch_size=2, num_channels=3)
MASKS = Masks(
    Patches(torch.tensor([[[0, 1, 2]], [[0, 4, 8]]])),
    Patches(
        torch.tensor([[[5, 6, 9], [10, 11, 0]], [[1, 2, 3], [13, 14, 15]]]),
        torch.tensor([[[True, True, True], [True, True, False]], [[True, True, True], [True, True, True]]]),
    ),
)


def images(count: int = 2) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def build_encoder() -> VisionTransformer:
    encoder = VisionTransformer(GRID, 2, 3, SIZE, SinCosPosition(ComponentParams(), GRID, 24, 3))
    initialize_weights(encoder, torch.Generator().manual_seed(0))
    for parameter in encoder.parameters():
        parameter.data.mul_(5)
    return encoder.requires_grad_(False)


def features_target(**params: object) -> FeaturesTarget:
    return FeaturesTarget(FeaturesParams.model_validate(params), INPUTS)


def build_model(target: Target) -> IJepa:
    narrow = ModelSize(24, 2, 3)
    predictor = Predictor(24, narrow, SinCosPosition(ComponentParams(), GRID, 24, 3), target_dim=target.num_features)
    encoder = build_encoder().requires_grad_(True)
    initialize_weights(predictor, torch.Generator().manual_seed(1))
    return IJepa(encoder, predictor, target, L2Loss(L2Params(over_features="mean")))


def test_unpatchify_undoes_patchify_on_a_grid_that_is_not_square() -> None:
    wide = torch.rand(2, 3, 4, 6)
    patches = patchify(wide, 2)
    assert torch.equal(patches[1, 1], wide[1, :, 0:2, 2:4].flatten())
    assert torch.equal(unpatchify(patches, 2, Grid(2, 3)), wide)


def test_features_are_those_of_the_whole_image_at_the_target_patches() -> None:
    encoder = build_encoder()
    targets = features_target(normalization="none").compute(encoder, images(), MASKS)
    whole = encoder(images())
    for image, block, patch in ((0, 0, 2), (0, 1, 1), (1, 1, 0)):
        assert torch.equal(targets[image, block, patch], whole[image, MASKS.target.indices[image, block, patch]])


def test_batch_norm_gives_each_feature_mean_0_and_variance_1_over_all_patches() -> None:
    everything = Masks(MASKS.context, Patches(torch.arange(16).expand(2, 1, 16)))
    targets = features_target(normalization="batch_norm").compute(build_encoder(), images(), everything)
    flat = targets.flatten(0, 2)
    assert flat.mean(dim=0).abs().max() < 1e-5
    assert (flat.std(dim=0, correction=0) - 1).abs().max() < 1e-3
    expected = F.batch_norm(build_encoder()(images()).flatten(0, 1), None, None, training=True, eps=1e-5)
    assert torch.allclose(flat, expected, atol=1e-5)


def test_several_layers_are_averaged_before_they_are_normalised() -> None:
    encoder = build_encoder()
    layers = encoder.last_layers(images(), 2).unflatten(-1, (2, 24))
    mean = F.layer_norm((layers[..., 0, :] + layers[..., 1, :]) / 2, (24,))
    targets = features_target(num_layers=2).compute(encoder, images(), MASKS)
    assert torch.allclose(targets[0, 0, 1], mean[0, 6], atol=1e-5)
    assert not torch.allclose(targets, features_target().compute(encoder, images(), MASKS), atol=1e-2)


def test_more_layers_than_the_encoder_has_are_refused() -> None:
    assert FeaturesTarget.check(FeaturesParams(num_layers=3), INPUTS) is None
    assert "at most the number of blocks of the encoder (3), got 4; lower it" in str(
        FeaturesTarget.check(FeaturesParams(num_layers=4), INPUTS)
    )
    assert PooledFeaturesTarget.check(EncodedParams(num_layers=4), INPUTS) is not None


@pytest.mark.parametrize("normalization", ["layer_norm", "batch_norm", "none"])
def test_target_patches_encoded_alone_know_nothing_of_the_rest_of_the_image(normalization: str) -> None:
    encoder, seen = build_encoder(), images()
    used = torch.zeros(2, 16, dtype=torch.bool).scatter(1, MASKS.target.indices.flatten(1), True)
    used[0, 0] = False  # padding
    patches = patchify(seen, 2)
    elsewhere = unpatchify(torch.where(used.unsqueeze(-1), patches, torch.randn_like(patches)), 2, GRID)
    alone = features_target(encode="target_patches_only", normalization=normalization)
    whole = features_target(normalization=normalization)
    valid = MASKS.target.valid
    first, second = (alone.compute(encoder, given, MASKS)[valid] for given in (seen, elsewhere))
    assert torch.allclose(first, second, atol=1e-5)
    assert not torch.allclose(
        whole.compute(encoder, seen, MASKS)[valid], whole.compute(encoder, elsewhere, MASKS)[valid]
    )
    if normalization == "none":
        block = encoder(seen[1:2], Patches(MASKS.target.indices[1, :1]))
        assert torch.allclose(alone.compute(encoder, seen, MASKS)[1, 0], block[0], atol=1e-5)


def test_pooled_features_are_the_average_of_the_valid_patches_at_every_patch_of_a_block() -> None:
    encoder = build_encoder()
    pooled = PooledFeaturesTarget(EncodedParams(), INPUTS).compute(encoder, images(), MASKS)
    single = features_target().compute(encoder, images(), MASKS)
    assert torch.allclose(pooled[0, 1, 0], single[0, 1, :2].mean(dim=0), atol=1e-6)
    assert torch.allclose(pooled[1, 0, 2], single[1, 0].mean(dim=0), atol=1e-6)


def test_pixels_are_the_pixels_of_the_target_patches() -> None:
    targets = PixelsTarget(ComponentParams(), INPUTS).compute(build_encoder(), images(), MASKS)
    assert torch.equal(targets[0, 0, 0], images()[0, :, 2:4, 2:4].flatten())  # patch 5: row 1, column 1


def test_normalised_pixels_have_mean_0_and_variance_1_in_each_patch() -> None:
    targets = NormalizedPixelsTarget(ComponentParams(), INPUTS).compute(build_encoder(), 7 + 3 * images(), MASKS)
    assert targets.mean(dim=-1).abs().max() < 1e-5
    assert (targets.var(dim=-1) - 1).abs().max() < 1e-4
    pixels = images()[0, :, 2:4, 2:4].flatten()
    assert torch.allclose(targets[0, 0, 0], (pixels - pixels.mean()) / pixels.std(), atol=1e-4)


class NeverRun(torch.nn.Module):
    """A target encoder that must not be run."""

    def forward(self, *_: object) -> Tensor:
        raise AssertionError("the target encoder was run")


@pytest.mark.parametrize("target", [PixelsTarget, NormalizedPixelsTarget, PcaTarget])
def test_targets_of_patches_do_not_run_the_target_encoder(target: type[Target]) -> None:
    model = build_model(target(target.Params(), INPUTS))
    model.target_encoder = NeverRun()
    assert torch.isfinite(model(images(), MASKS).loss)


def test_principal_components_are_those_of_scikit_learn() -> None:
    data = images(64)
    target = PcaTarget(PcaParams(num_components=5), INPUTS)
    target.fit(lambda count: iter(data.split(20)))
    patches = patchify(data, 2).flatten(0, 1)
    peer = PCA(5, svd_solver="full").fit(patches.numpy())
    ours, theirs = target.components, torch.from_numpy(peer.components_.T)
    assert ((ours * theirs).sum(dim=0).abs() - 1).abs().max() < 1e-4
    assert torch.allclose(target.variances, torch.from_numpy(peer.explained_variance_) * (1023 / 1024), rtol=1e-4)
    assert (ours.gather(0, ours.abs().argmax(dim=0, keepdim=True)) > 0).all()


@pytest.mark.parametrize("num_components", [1, 5, 12])
def test_principal_components_reconstruct_with_the_stated_error(num_components: int) -> None:
    data = images(64)
    target = PcaTarget(PcaParams(num_components=num_components), INPUTS)
    target.fit(lambda count: iter([data]))
    everything = Masks(Patches(torch.zeros(64, 1, 1, dtype=torch.int64)), Patches(torch.arange(16).expand(64, 1, 16)))
    decoded = target.reconstruct(target.compute(NeverRun(), data, everything))
    error = (decoded.flatten(0, 2) - patchify(data, 2).flatten(0, 1)).square().sum(dim=-1).mean()
    stated = target.total_variance - target.variances.sum()
    assert error.item() == pytest.approx(stated.item(), rel=1e-3, abs=1e-5)
    assert (num_components == 12) == (error.item() < 1e-6)


def test_without_a_number_a_quarter_of_a_patch_s_numbers_are_predicted() -> None:
    assert PcaTarget(PcaParams(), INPUTS).num_features == 3
    assert PcaTarget(PcaParams(), TargetInputs(24, 3, 1, 1)).num_features == 1
    assert "(3 channel(s) x 2 x 2 = 12), got 13; lower it" in str(PcaTarget.check(PcaParams(num_components=13), INPUTS))


@pytest.mark.parametrize("target", [PixelsTarget, PcaTarget])
def test_a_model_of_pixels_learns_to_predict_the_hidden_pixels(target: type[Target]) -> None:
    """Vertical bands whose lower half is hidden and follows from the upper one: what is decoded is the image."""
    bands = torch.randn(16, 3, 1, 2, generator=torch.Generator().manual_seed(0))
    data = bands.repeat_interleave(4, dim=3).expand(16, 3, 8, 8).contiguous()
    upper, lower = torch.arange(16).expand(16, 1, 16).split(8, dim=-1)
    masks = Masks(Patches(upper), Patches(lower))
    kind = target(target.Params(), INPUTS)
    kind.fit(lambda count: iter([data]))
    model = build_model(kind)
    initialize_weights(model.context_encoder, torch.Generator().manual_seed(2))
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        model(data, masks).loss.backward()
        optimizer.step()
    predicted = model(data, masks).predictions[:, 0, 0]  # [16, 8, num_features]
    decoded = kind.reconstruct(predicted) if isinstance(kind, PcaTarget) else predicted
    lower = unpatchify(torch.cat([torch.zeros_like(decoded), decoded], dim=1), 2, GRID)[:, :, 4:]
    assert (lower - data[:, :, 4:]).square().mean() < 0.1  # of a variance of 1
