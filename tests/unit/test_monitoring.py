"""Which monitors a pipeline measures, and how its settings are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from jepa_lab.config.loading import load_pipeline
from jepa_lab.errors import ConfigError
from jepa_lab.monitoring import end_metrics, monitors_at_end, monitors_at_probe_epochs, some_images
from jepa_lab.monitors.lidar import Lidar
from tests.integration.pipelines import load_tiny, write_tiny


def test_what_the_rule_of_collapse_reads_is_measured_whatever_is_chosen(tmp_path: Path) -> None:
    names = [
        chosen.name for chosen in monitors_at_probe_epochs(load_tiny(tmp_path, "monitors.probe_epochs=[]").pipeline)
    ]
    assert names == ["rankme", "feature_std", "image_variance_ratio"]


def test_monitors_have_the_parameters_that_the_pipeline_gives_them(tmp_path: Path) -> None:
    pipeline = load_tiny(tmp_path, "monitors.end=[{name: lidar, images: 7, views: 3}, rankme]").pipeline
    lidar, rankme = monitors_at_end(pipeline)
    assert isinstance(lidar.monitor, Lidar)
    assert (lidar.monitor.images, lidar.monitor.views, rankme.name) == (7, 3, "rankme")
    assert end_metrics(pipeline) == ["monitor/lidar_train", "monitor/rankme_train", "monitor/rankme_centred_train"]


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ("monitors.probe_epochs=[rankme]", "which are measured in any case, got 'rankme'; leave it out"),
        ("monitors.end=[rankme, rankme]", "'rankme' stands here 2 times; keep one of them"),
        ("monitors.end=[rank_me]", "rankme"),
        ("monitors.end=[{name: lidar, views: 1}]", "views"),
        ("monitors.end=[{name: alpha_req, first: 50, last: 52}]", "last must be at least 9 above"),
        ("monitors.max_train_images=1", "max_train_images"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_with_its_place_and_remedy(
    tmp_path: Path, override: str, told: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_tiny(tmp_path, override)
    assert "monitors." in str(caught.value)
    assert told in str(caught.value)


def test_the_smoke_preset_takes_few_views_and_leaves_other_monitors_as_they_are(tmp_path: Path) -> None:
    def at_end(*overrides: str) -> list[tuple[str, dict[str, object]]]:
        text = "name: x\ndata: {dataset: digits, image_size: 8}\nencoder: {patch_size: 2}\ntracking: none\n"
        pipeline = load_pipeline(write_tiny(tmp_path, text + "".join(overrides)), [], "smoke").pipeline
        return [
            (chosen.name, chosen.monitor.params.model_dump(exclude={"name"})) for chosen in monitors_at_end(pipeline)
        ]

    few = {"images": 64, "views": 4, "delta": 1e-4}
    assert at_end() == [("rankme", {}), ("alpha_req", {"first": 6, "last": 100}), ("lidar", few)]
    assert at_end("monitors: {end: [uniformity, lidar]}") == [("uniformity", {"t": 2.0}), ("lidar", few)]
    assert at_end("monitors: {end: []}") == []


def test_some_images_are_a_fixed_choice_in_their_order() -> None:
    images = torch.arange(100)[:, None, None, None]
    some = some_images(images, 20, 0, "x")
    assert len(some) == 20
    assert torch.equal(some, some_images(images, 20, 0, "x"))  # type: ignore[arg-type]
    assert torch.equal(some, some.sort(dim=0).values)  # type: ignore[union-attr, arg-type]
    assert not torch.equal(some, some_images(images, 20, 1, "x"))  # type: ignore[arg-type]
    assert len(some_images(images, 1000, 0, "x")) == 100
