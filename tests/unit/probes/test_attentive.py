"""Tests of the attentive probe, against PyTorch's attention and a task that a mean over patches cannot solve."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from jepa_lab.data.base import ImageSplit
from jepa_lab.probes.attentive import Attentive, token_scaling
from jepa_lab.probes.attentive_heads import AttentiveHeads, TokenScaling
from jepa_lab.probes.base import Probe
from jepa_lab.probes.linear_ijepa import LinearIjepa
from jepa_lab.probes.linear_sgd import LinearSgd
from jepa_lab.probes.logistic import Logistic
from jepa_lab.probes.splits import ProbeSplits
from jepa_lab.probes.tokens import tokens_of_splits
from jepa_lab.testing.subjects import labelled_images, make_splits, make_subject
from tests.unit.probes.fakes import FakeEncoder

CPU = torch.device("cpu")


def attentive(**params: Any) -> Attentive:
    return Attentive(Attentive.Params(**{"num_heads": 2, "epochs": 3, "batch_size": 30, **params}))


def some_heads(width: int = 6, num_heads: int = 2, num_settings: int = 3) -> AttentiveHeads:
    """With scales and values of all parameters as they might be in the middle of a training."""
    generator = torch.Generator().manual_seed(0)
    scaling = TokenScaling(
        torch.randn(width, generator=generator),
        torch.rand(width, generator=generator) + 0.5,
        torch.randn(width, width, generator=generator),
    )
    heads = AttentiveHeads(num_settings, num_heads, 3, scaling, generator)
    for copies in heads.copies.values():
        for each in copies:
            each.data = torch.randn(each.shape, generator=generator)
    return heads


def by_torch(heads: AttentiveHeads, setting: int, tokens: Tensor) -> tuple[Tensor, Tensor, nn.MultiheadAttention]:
    """What `torch.nn.MultiheadAttention` reads with the same weights, its attention [b, H, N], and itself."""
    query, key, value = (heads.copies[name][setting] for name in ("query", "key", "value"))
    width = tokens.shape[-1]
    theirs = nn.MultiheadAttention(width, len(query), bias=False, batch_first=True)
    with torch.no_grad():
        scaled_key = key.flatten(0, 1) * heads.scaling.keys
        scaled_value = (heads.scaling.values @ value.permute(1, 0, 2).flatten(1)).T
        theirs.in_proj_weight.copy_(torch.cat([torch.eye(width), scaled_key, scaled_value]))
        theirs.out_proj.weight.copy_(torch.eye(width))
    x = tokens - heads.scaling.mean
    asked = query.detach().flatten()[None, None].expand(len(x), 1, -1)
    read, attention = theirs(asked, x, x, average_attn_weights=False)
    return read[:, 0], attention[:, :, 0], theirs


def test_the_attention_is_that_of_torch_with_the_same_weights_and_so_are_its_gradients() -> None:
    heads, tokens = some_heads(), torch.randn(5, 7, 6, generator=torch.Generator().manual_seed(1))
    direction = torch.randn(5, 6, generator=torch.Generator().manual_seed(2))
    for setting in range(3):
        read, attention, theirs = by_torch(heads, setting, tokens)
        assert torch.allclose(heads.pooled(tokens)[:, setting], read, rtol=1e-4, atol=1e-5)
        assert torch.allclose(heads.weights(tokens)[:, setting], attention, rtol=1e-4, atol=1e-6)
        (read * direction).sum().backward()
        (heads.pooled(tokens)[:, setting] * direction).sum().backward()
        _, key, value = theirs.in_proj_weight.grad.split(6)  # type: ignore[union-attr]
        own_key, own_value = (heads.copies[name][setting].grad for name in ("key", "value"))
        assert own_key is not None
        assert own_value is not None
        assert torch.allclose(own_key.flatten(0, 1), key * heads.scaling.keys, rtol=1e-3, atol=1e-4)
        assert torch.allclose(own_value.permute(1, 0, 2).flatten(1), heads.scaling.values.T @ value.T, 1e-3, 1e-4)


def test_settings_do_not_disturb_each_other_even_where_one_explodes() -> None:
    subject = make_subject(FakeEncoder())
    alone = attentive(learning_rates=(0.01,), weight_decays=(0.1,)).run(subject)
    together = attentive(learning_rates=(0.01, 1e30), weight_decays=(0.1, 1.0)).run(subject)
    found = {(rate, decay): value for rate, decay, value in together.details["validation_accuracy_by_setting"]}
    assert found[0.01, 0.1] == alone.scores[0].validation
    assert len(found) == 4


class OnePatchTells(nn.Module):
    """Nine tokens of noise, one of which, anywhere, is marked and carries the class beside the mark."""

    def last_layers(self, images: Tensor, num_layers: int) -> Tensor:
        return images[:, 0].unflatten(1, (9, 1)).flatten(2)  # [B, 9, 8]


def marked_images(num_images: int, seed: int) -> ImageSplit:
    """[n, 1, 9, 8] uint8, a row a token: column 0 marks, columns 1 to 3 tell the class where it is marked."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (num_images, 1, 9, 8), generator=generator)
    images[..., 0] = torch.randint(0, 100, (num_images, 1, 9), generator=generator)
    labels = torch.arange(num_images) % 3
    places = torch.randint(0, 9, (num_images,), generator=generator)
    images[torch.arange(num_images), 0, places, 0] = 255
    images[torch.arange(num_images), 0, places, 1:4] = 255 * torch.nn.functional.one_hot(labels, 3)
    return ImageSplit(images.to(torch.uint8), labels)


def test_it_finds_the_one_patch_that_carries_the_label_where_a_mean_over_patches_drowns_it() -> None:
    splits = ProbeSplits(
        marked_images(900, 1), marked_images(600, 2), None, ("a", "b", "c"), torch.tensor([0.5]), torch.tensor([0.3])
    )
    subject = make_subject(OnePatchTells(), splits, batch_size=300)
    mean_of_patches = Logistic(Logistic.Params()).run(subject).scores[0]
    attended = attentive(epochs=15, learning_rates=(0.03,), weight_decays=(0.01,), batch_size=60).run(subject).scores[0]
    assert attended.validation is not None
    assert mean_of_patches.validation is not None
    assert attended.validation > 0.97
    assert mean_of_patches.validation < 0.8


class Correlated(FakeEncoder):
    """Features of one large direction that says nothing and small ones that tell all, as an encoder's are."""

    def last_layers(self, images: Tensor, num_layers: int) -> Tensor:
        tokens = super().last_layers(images, num_layers)
        return 100 * tokens.mean(dim=2, keepdim=True) + tokens


def test_where_the_mean_over_patches_tells_all_it_is_about_as_good_as_logistic_regression() -> None:
    splits = make_splits()
    splits = replace(splits, train=labelled_images(600, 3, seed=1), validation=labelled_images(600, 3, seed=2))
    subject = make_subject(Correlated(), splits, batch_size=300)
    exact = Logistic(Logistic.Params()).run(subject).scores[0].validation
    found = attentive(epochs=10, learning_rates=(0.003,), weight_decays=(0.01,)).run(subject)
    assert found.scores[0].validation == pytest.approx(exact, abs=0.03)


def test_tokens_in_a_file_and_tokens_that_are_computed_again_give_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for make in (FakeEncoder, lambda: None):
        encoder = make()
        stored = attentive(learning_rates=(0.01,)).run(make_subject(encoder, scratch=tmp_path / "new"))
        assert list((tmp_path / "new").iterdir()) == []
        seen = getattr(encoder, "seen", 0)
        with monkeypatch.context() as patch:
            patch.setattr("jepa_lab.probes.tokens._BYTES_IN_A_FILE", 0)
            computed = attentive(learning_rates=(0.01,)).run(make_subject(encoder, scratch=tmp_path / "other"))
        assert not (tmp_path / "other").exists()
        assert computed.details["validation_accuracy_by_setting"] == stored.details["validation_accuracy_by_setting"]
        assert computed.predictions == stored.predictions
        if encoder is not None:
            assert seen == 90 + 45 + 60 + 1, "every image once, and one for the size"
            assert encoder.seen > 2 * seen


def test_of_one_batch_or_many_the_scaling_is_that_of_all_tokens() -> None:
    subject = make_subject(FakeEncoder())
    parts = [subject.splits.train, subject.splits.validation]
    with tokens_of_splits(subject, parts) as tokens:
        scaling = token_scaling(tokens, 90, CPU)
        whole = torch.cat(list(tokens.of(torch.arange(90))))
    assert torch.allclose(scaling.mean, whole.mean(dim=(0, 1)), atol=1e-6)
    assert torch.allclose(scaling.keys, 1 / whole.flatten(0, 1).std(dim=0, correction=0), rtol=1e-5)
    pooled = (whole.mean(dim=1) - scaling.mean) @ scaling.values
    covariance = torch.cov(pooled.T, correction=0)
    assert torch.allclose(covariance, covariance.diagonal().diag(), atol=1e-4), "uncorrelated"


def test_the_test_split_is_scored_with_the_chosen_probe_trained_on_training_and_validation() -> None:
    splits = make_splits()
    apart = attentive(learning_rates=(0.03,), weight_decays=(0.1,)).run(make_subject(FakeEncoder(), splits))
    joined = replace(
        splits,
        train=ImageSplit(
            torch.cat([splits.train.images, splits.validation.images]),  # type: ignore[arg-type]
            torch.cat([splits.train.labels, splits.validation.labels]),  # type: ignore[arg-type]
        ),
        validation=splits.test,
        test=None,
    )
    together = attentive(learning_rates=(0.03,), weight_decays=(0.1,)).run(make_subject(FakeEncoder(), joined))
    assert apart.scores[0].test == together.scores[0].validation


@pytest.mark.parametrize(
    "changes",
    [
        {"num_heads": 3},
        {"epochs": 6},
        {"batch_size": 9},
        {"warmup_fraction": 1.0},
        {"learning_rates": (0.1,)},
        {"weight_decays": (3.0,)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_every_parameter_changes_what_is_trained(changes: dict[str, Any]) -> None:
    base: dict[str, Any] = {"learning_rates": (0.03,), "weight_decays": (0.01,)}
    subject = make_subject(FakeEncoder(), replace(make_splits(), test=labelled_images(900, 3, seed=9)))
    found = [attentive(**{**base, **params}).run(subject) for params in ({}, changes)]
    assert found[0].predictions != found[1].predictions


def test_another_seed_trains_another_probe() -> None:
    subjects = [make_subject(FakeEncoder(), seed=seed) for seed in (0, 0, 1)]
    found = [attentive(learning_rates=(0.03,)).run(subject).predictions for subject in subjects]
    assert found[0] == found[1]
    assert found[0] != found[2]


def test_a_batch_is_256_images_or_a_sixteenth_of_a_small_training_split() -> None:
    sizes = [Attentive.Params().images_in_a_batch(number) for number in (2, 90, 1150, 45_000)]
    assert sizes == [2, 5, 71, 256]
    assert Attentive.Params(batch_size=512).images_in_a_batch(90) == 90


def test_a_width_that_heads_do_not_divide_is_rounded_up() -> None:
    outcome = attentive(num_heads=4, learning_rates=(0.01,)).run(make_subject(FakeEncoder()))
    assert outcome.scores[0].validation is not None


def test_what_was_chosen_is_told() -> None:
    outcome = attentive(learning_rates=(0.01, 0.05)).run(make_subject(FakeEncoder()))
    rate, decay = outcome.details["learning_rate"], outcome.details["weight_decay"]
    assert outcome.choice == f"learning rate {rate:g}, weight decay {decay:g}"
    assert attentive(learning_rates=(0.01,), weight_decays=(0.1,)).run(make_subject(FakeEncoder())).choice == ""


@pytest.mark.parametrize("values", [(), (-0.1,), (0.1, 0.1), (0.2, 0.1), (float("inf"),)])
@pytest.mark.parametrize("name", ["learning_rates", "weight_decays"])
def test_grids_that_are_not_positive_finite_and_increasing_are_refused(name: str, values: tuple[float, ...]) -> None:
    with pytest.raises(ValidationError, match=name):
        Attentive.Params(**{name: values})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
@pytest.mark.parametrize(
    "probe",
    [
        attentive(learning_rates=(0.01,)),
        LinearSgd(LinearSgd.Params(learning_rates=(0.1,), epochs=3)),
        LinearIjepa(LinearIjepa.Params(batch_size=30, epochs=3, learning_rates=(0.05,), optimizer="sgd")),
    ],
    ids=["attentive", "linear_sgd", "linear_ijepa"],
)
def test_probes_that_train_heads_do_so_on_a_gpu(probe: Probe) -> None:
    device = torch.device("cuda")
    on_gpu = probe.run(make_subject(FakeEncoder().to(device), device=device)).scores[0]
    on_cpu = probe.run(make_subject(FakeEncoder())).scores[0]
    # Crops are drawn by the device's own generator, so that of linear_ijepa is another one.
    assert on_gpu.validation_accuracy == pytest.approx(on_cpu.validation_accuracy, abs=0.2)
