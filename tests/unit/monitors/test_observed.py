"""What monitors are given."""

from __future__ import annotations

import pytest
import torch

from jepa_lab.data.resident import normalize, to_float
from jepa_lab.maskers.patches import Patches
from jepa_lab.monitors.observed import Observed
from jepa_lab.probes.features import extract_features
from jepa_lab.randomness import build_generator
from jepa_lab.testing.encoders import WIDTH
from jepa_lab.testing.monitors import make_observed, random_images


def test_features_are_the_averages_of_the_patches_however_they_are_computed() -> None:
    extracted, averaged = make_observed(), make_observed()
    assert averaged.patches.shape == (60, 16, WIDTH)
    assert torch.allclose(extracted.features, averaged.features, atol=1e-6)
    expected = extract_features(
        extracted.encoder, extracted.images, extracted.mean, extracted.std, 1, 60, extracted.device
    )
    assert torch.allclose(extracted.features, expected, atol=1e-6)


def test_some_of_the_images_are_evenly_spaced() -> None:
    images = torch.arange(60, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 8, 8)
    observed = make_observed(images)
    assert observed.spread(4).images[:, 0, 0, 0].tolist() == [0, 15, 30, 45]  # type: ignore[index]
    assert observed.spread(60) is observed
    assert observed.spread(100) is observed


def views(observed: Observed, count: int = 5) -> torch.Tensor:
    return torch.cat(list(observed.masked_views(count)))


def test_a_view_is_the_average_over_a_context_that_the_encoder_sees_alone() -> None:
    observed = make_observed()
    found = views(observed)
    assert found.shape == (60, 5, WIDTH)
    generator = build_generator(0, "monitored views")
    contexts = [observed.sampler.sample(24, generator).context for _ in range(5)]
    image = normalize(to_float(random_images(60)[:1]), observed.mean, observed.std)
    sizes = set()
    for number, context in enumerate(contexts):
        kept = context.indices[0, 0][context.validity()[0, 0]]  # without padding
        sizes.add(len(kept))
        whole = observed.encoder.patch_embed.patchify(image)
        erased = torch.zeros_like(whole)
        erased[:, kept] = whole[:, kept]
        of_erased = erased.unflatten(1, (4, 4)).unflatten(-1, (3, 2, 2)).permute(0, 3, 1, 4, 2, 5).reshape(1, 3, 8, 8)
        alone = observed.encoder(of_erased, Patches(kept[None])).mean(dim=1)[0]
        assert torch.allclose(found[0, number], alone, atol=1e-5)
    assert len(sizes) > 1, "contexts of unequal sizes"


def test_views_are_the_same_for_every_size_of_the_passes_and_each_time() -> None:
    observed = make_observed()
    torch.manual_seed(1)
    first = views(observed)
    torch.manual_seed(2)
    assert torch.equal(first, views(observed))
    assert torch.allclose(first, views(make_observed(batch_size=60)), atol=1e-5)
    assert not torch.equal(first, views(make_observed(seed=1)))


@pytest.mark.parametrize("mode", [True, False], ids=["training", "evaluation"])
def test_observing_leaves_the_encoder_and_the_global_generator_as_they_were(mode: bool) -> None:
    observed = make_observed()
    observed.encoder.train(mode)
    state = torch.get_rng_state()
    assert observed.patches.shape[0] == 60
    views(observed)
    assert torch.equal(state, torch.get_rng_state())
    assert all(module.training == mode for module in observed.encoder.modules())
