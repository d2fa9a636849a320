"""Numbers with a few zeros too many are refused with the memory that they would take, before anything is built."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import jepa_lab.config.memory as memory_module
from jepa_lab.build import build_model
from jepa_lab.config.checks import check_pipeline, pipeline_geometry
from jepa_lab.config.loading import load_pipeline
from jepa_lab.config.memory import in_words, machine_memory_bytes, memory_needs, num_parameters
from jepa_lab.errors import ConfigError
from jepa_lab.inspection import inspect_pipeline

ROOT = Path(__file__).parents[3]
DIGITS = ROOT / "pipelines" / "digits.yaml"


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["data.image_size=100000"], ["6250x6250 = 39,062,500 patches", "at most 16,384", "raise encoder.patch_size"]),
        (["data.image_size=100000", "encoder.patch_size=1000"], ["2.33 TiB", "100,000 x 100,000", "lower data"]),
        (["encoder.patch_size=1000000", "data.image_size=1000000"], ["the weights of the encoder"]),
        (["encoder.size={name: custom, embed_dim: 1000000000, depth: 1, num_heads: 1}"], ["PiB", "smaller encoder"]),
        (["encoder.size={name: custom, embed_dim: 64, depth: 1, num_heads: 2, mlp_ratio: 1e308}"], ["million PiB"]),
        (["encoder.size={name: custom, embed_dim: 64, depth: 1, num_heads: 2, mlp_ratio: 1e-300}"], ["hidden width"]),
        (["encoder.size={name: custom, embed_dim: 4, depth: 1000000, num_heads: 1}"], ["equal to 1000", "lower it"]),
        (["training.batch_size=1000000000"], ["14.9 TiB", "lower data.image_size or training.batch_size"]),
        (["masker.num_targets=1000000"], ["less than or equal to 256"]),
        (["training.epochs=1000000000000"], ["training.epochs", "1000000", "lower it"]),
        (["training.num_threads=1000000000"], ["training.num_threads", "1024"]),
        (["optimizer.schedule_stretch=1e300"], ["schedule_stretch", "1000"]),
        (["seed=" + "9" * 30], ["seed must lie between -2**63 and 2**63", "smaller number"]),
        (["data.dataset={name: synthetic, num_train: 1000000000000}"], ["11 PiB", "fewer images"]),
    ],
)  # fmt: skip
def test_numbers_that_no_machine_holds_are_refused_with_the_numbers(
    overrides: list[str], words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory_module, "machine_memory_bytes", lambda: 16 * 2**30)

    def check() -> None:
        loaded = load_pipeline(DIGITS, overrides)
        check_pipeline(loaded)
        inspect_pipeline(loaded)

    with pytest.raises(ConfigError, match=r"^override '") as caught:
        check()
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize("size", ["cifar", "small", "giant"])
def test_the_parameters_counted_beforehand_are_those_of_the_model(size: str) -> None:
    pipeline = load_pipeline(DIGITS, [f"encoder.size={size}"]).pipeline
    with torch.device("meta"):
        model = build_model(pipeline, 1)
    built = sum(parameter.numel() for parameter in model.context_encoder.blocks.parameters())
    counted = num_parameters(pipeline_geometry(pipeline).encoder)
    assert built * 0.99 < counted <= built


def test_every_need_is_a_lower_bound_that_the_shipped_pipelines_keep_far_below_a_small_machine() -> None:
    for file in (ROOT / "pipelines").glob("*.yaml"):
        pipeline = load_pipeline(file).pipeline
        geometry = pipeline_geometry(pipeline)
        needs = memory_needs(pipeline, geometry.grid, geometry.encoder, geometry.predictor)
        small = 2**32 if pipeline.data.dataset.name == "imagenet" else 2**29  # those of ImageNet are for a GPU
        assert sum(need.num_bytes for need in needs) < small, file


def test_memory_is_that_of_the_container_where_it_has_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory_module, "_CGROUP_LIMIT", limit)
    physical = machine_memory_bytes()
    assert physical > 2**28
    limit.write_text("max\n")
    assert machine_memory_bytes() == physical
    limit.write_text("1048576\n")
    assert machine_memory_bytes() == 2**20
    assert in_words(2**20) == "1 MiB"
