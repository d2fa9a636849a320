"""The five source systems: every shipped pipeline does what its document describes."""

from __future__ import annotations

import math
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from matplotlib.image import imread

import jepa_lab.training.step as step_module
from jepa_lab.build import build_model, build_sampler, build_schedules
from jepa_lab.cli import main
from jepa_lab.composition.outcome import RunOutcome
from jepa_lab.composition.start import start_run
from jepa_lab.config.checks import check_pipeline, pipeline_geometry
from jepa_lab.config.loading import load_pipeline
from jepa_lab.config.pipeline import Pipeline
from jepa_lab.figures.masks import CONTEXT_COLOUR, TARGET_COLOUR
from jepa_lab.maskers.base import Masks
from jepa_lab.models.hierarchy import Hierarchy
from jepa_lab.models.ijepa import IJepa
from jepa_lab.models.level_masks import level_grids
from jepa_lab.models.vit import VisionTransformer
from jepa_lab.positions.base import PositionEmbedding
from jepa_lab.positions.from_encoder import PositionFromEncoder
from jepa_lab.positions.learned import LearnedPosition
from jepa_lab.resume import resume_run
from jepa_lab.tracking.metrics import read_metrics
from jepa_lab.training.checkpoint import CheckpointStore
from jepa_lab.training.optimizer import build_optimizer, gated_step, scheduled_groups
from jepa_lab.training.parameter_groups import Decay, parameter_decays
from jepa_lab.training.step_numbers import StepNumbers
from tests.integration.pipelines import load_tiny
from tests.integration.runs import assert_same_run, killed_run
from tests.unit.data.files import write_tree
from tests.unit.maskers.reading import sizes_of

PIPELINES = Path(__file__).parents[2] / "pipelines"
SHIPPED = sorted(PIPELINES.glob("*.yaml"))
SYSTEMS = {
    "jepax_cifar10",
    "cifar10",
    "nexus_imagenet",
    "nexus_cifar10",
    "toy_cifar10",
    "hjepa_imagenet",
    "hjepa_cifar10",
}
ON_CPU = ("tracking=none", "training.device=cpu", "training.num_threads=1")
SHORT = (
    "data.max_images=80",
    "encoder.size={name: custom, embed_dim: 24, depth: 2, num_heads: 3}",
    "training.epochs=1",
    "training.log_every_steps=1",
)


def load(name: str, *overrides: str) -> Pipeline:
    """A shipped pipeline, checked as before a run."""
    loaded = load_pipeline(PIPELINES / f"{name}.yaml", overrides)
    check_pipeline(loaded)
    return loaded.pipeline


def smoke_run(name: str, folder: Path, *overrides: str) -> RunOutcome:
    return start_run(load_pipeline(PIPELINES / f"{name}.yaml", (*ON_CPU, *overrides), "smoke"), folder, ["test"])


def training_rows(outcome: RunOutcome) -> list[dict[str, float]]:
    rows = [row.metrics for row in read_metrics(outcome.folder.metrics)]
    return [row for row in rows if "train/loss" in row]


def draw(pipeline: Pipeline, batch_size: int = 64) -> Masks:
    return build_sampler(pipeline).sample(batch_size, torch.Generator().manual_seed(0))


def context_of(masks: Masks, image: int) -> list[int]:
    """The context patches of an image, in order."""
    return masks.context.indices[image][masks.context.validity()[image]].tolist()


def target_of(masks: Masks, image: int) -> set[int]:
    """Every patch that is a target of an image."""
    return set(masks.target.indices[image][masks.target.validity()[image]].tolist())


def narrow(pipeline: Pipeline) -> Pipeline:
    """The same pipeline with networks that are built in no time."""
    small = load_pipeline(PIPELINES / "cifar10.yaml", (), "smoke").pipeline
    encoder = pipeline.encoder.model_copy(update={"size": small.encoder.size})
    predictor = pipeline.predictor.model_copy(update={"size": small.predictor.size})
    return pipeline.model_copy(update={"encoder": encoder, "predictor": predictor})


def test_every_system_has_its_pipeline() -> None:
    assert {file.stem for file in SHIPPED} >= SYSTEMS


@pytest.mark.slow
@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_a_shipped_pipeline_runs_end_to_end_with_the_smoke_preset(file: Path, tmp_path: Path) -> None:
    outcome = smoke_run(file.stem, tmp_path)
    assert outcome.result["status"] == "FINISHED"
    assert outcome.result["metrics"]["probe/validation_accuracy"] is not None
    assert all(row["train/skipped_steps"] == 0 for row in training_rows(outcome))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(name for name in SYSTEMS if name.endswith("cifar10")))
def test_a_cifar10_pipeline_runs_on_colour_images_at_its_own_size(name: str, tmp_path: Path) -> None:
    write_tree(tmp_path / "cifar", {"train": 12, "test": 4}, [f"class_{number}" for number in range(10)])
    outcome = smoke_run(name, tmp_path / "runs", *SHORT, f"data.root={tmp_path / 'cifar'}")
    data = load_pipeline(outcome.folder.config).pipeline.data
    assert (data.dataset.name, data.image_size) == ("cifar10", load(name).data.image_size)
    assert outcome.result["status"] == "FINISHED"


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("cifar10", ["optimizer.weight_decay=0.04", "optimizer.final_weight_decay=0.4"]),
        ("jepax_cifar10", ["data.dataset=cifar100", "context_batching=subset"]),
        ("jepax_cifar10", ["data.dataset=celeba", "context_batching=pad"]),
        ("jepax_cifar10", ["data.dataset=imagenet", "probe.image_size=96"]),
        ("nexus_imagenet", ["target.encode=target_patches_only", "data.cache=true"]),
        ("nexus_imagenet", ["probe.additional=[knn, low_shot, finetune]"]),
        ("hjepa_imagenet", ["hierarchy.downsampling=conv", "probe.levels=null", "target.normalization=none"]),
        ("hjepa_imagenet", ["predictor.target_sequences=joint"]),
        (
            "hjepa_cifar10",
            [
                "regularizer={name: vicreg, variance_weight: 1, invariance_weight: 1, covariance_weight: 1, "
                "of: predictions}"
            ],
        ),
    ],
)
def test_what_the_comments_of_a_pipeline_offer_is_valid(name: str, overrides: list[str]) -> None:
    written = " ".join(line.removeprefix("# ") for line in (PIPELINES / f"{name}.yaml").read_text().splitlines())
    for override in overrides:
        assert override in written or override.partition("=")[2] in written
    load(name, *overrides)


@pytest.mark.parametrize("name", ["nexus_imagenet", "hjepa_imagenet"])
def test_without_imagenet_s_files_the_message_says_where_to_get_them(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["check", str(PIPELINES / f"{name}.yaml"), "data.root=nowhere"])
    assert result.exit_code == 2
    assert "nowhere" in result.output
    assert "Traceback" not in result.output


# --- jepax notes ---


@pytest.mark.parametrize(
    ("image_size", "patch_size", "side"), [(224, 16, 14), (224, 14, 16), (448, 16, 28), (64, 8, 8)]
)
def test_jepax_contexts_are_cut_to_the_smallest_of_the_batch_on_every_grid_of_the_notes(
    image_size: int, patch_size: int, side: int
) -> None:
    size = (f"data.image_size={image_size}", f"encoder.patch_size={patch_size}")
    pipeline, padded = load("jepax_cifar10", *size), load("jepax_cifar10", *size, "context_batching=pad")
    assert pipeline_geometry(pipeline).grid.num_patches == side**2
    prefix, pad = draw(pipeline), draw(padded)
    assert prefix.context.counts().unique().tolist() == [int(pad.context.counts().min())]
    assert pad.context.counts().unique().numel() > 1
    for image in range(len(pad)):
        kept = context_of(prefix, image)
        assert kept == context_of(pad, image)[: len(kept)]


def test_jepax_fills_one_sequence_with_the_union_of_four_blocks_that_are_cut_out_of_the_context() -> None:
    joint, separate = load("jepax_cifar10"), load("jepax_cifar10", "predictor.target_sequences=separate")
    masks, blocks = draw(joint), draw(separate)
    assert (masks.target.shape[1], blocks.target.shape[1]) == (1, 4)
    for image in range(len(masks)):
        assert target_of(masks, image) == target_of(blocks, image)
        assert target_of(masks, image).isdisjoint(context_of(masks, image))


def test_jepax_runs_and_is_probed_at_another_resolution(tmp_path: Path) -> None:
    outcome = smoke_run("jepax_cifar10", tmp_path, *SHORT, "probe.image_size=20")
    assert outcome.result["status"] == "FINISHED"
    assert outcome.result["metrics"]["probe/validation_accuracy"] is not None
    rows = training_rows(outcome)
    assert rows[0]["train/ema_momentum"] == pytest.approx(0.996)
    assert all(row["train/context_patches"].is_integer() for row in rows)


# --- I-JEPA on CIFAR-10 ---


def test_cifar10_is_the_design_document_number_by_number() -> None:
    pipeline = load("cifar10")
    geometry = pipeline_geometry(pipeline)
    assert [str(size) for size in (geometry.grid, geometry.encoder, geometry.predictor)] == ["8x8", "192x6x6", "96x4x6"]
    schedules = build_schedules(pipeline, steps_per_epoch=10)
    peak, last = schedules.learning_rate(100), schedules.learning_rate(1000)
    assert (peak, last) == (pytest.approx(1e-3), pytest.approx(1e-5))
    assert schedules.weight_decay(1) == schedules.weight_decay(1000) == 0.05
    assert Decay.NONE not in parameter_decays(build_model(narrow(pipeline), 3), pipeline.optimizer).values()
    momenta = [schedules.ema_momentum(step) for step in (1, 501, 1001)]
    assert momenta == pytest.approx([0.996, 0.998, 1.0])
    predictions, targets = torch.zeros(1, 1, 2, 3), torch.tensor([[[[1.0, 2.0, 0.0], [0.0, 0.0, 3.0]]]])
    loss = build_model(narrow(pipeline), 3).loss.per_patch(predictions, targets)
    assert loss.flatten().tolist() == [5.0, 9.0]  # summed over features; the mean is over patches


# --- Shapes of blocks ---


@pytest.mark.parametrize(
    ("name", "scale", "whole", "wider"),
    [
        ("cifar10", (0.15, 0.25), True, 0.46),
        ("nexus_cifar10", (0.10, 0.15), False, 0.40),
        ("nexus_imagenet", (0.10, 0.15), False, 0.52),
    ],
)
def test_target_blocks_have_the_shapes_of_the_document(
    name: str, scale: tuple[float, float], whole: bool, wider: float
) -> None:
    pipeline = load(name, "predictor.target_sequences=separate")
    grid = pipeline_geometry(pipeline).grid
    # The document's blocks, drawn one by one as it writes them.
    rng, documented = random.Random(0), Counter[tuple[int, int]]()
    for _ in range(20_000):
        area, aspect = grid.num_patches * rng.uniform(*scale), rng.uniform(0.75, 1.5)
        height = round(math.sqrt((int(area) if whole else area) / aspect))
        documented[height, round(height * aspect)] += 1
    ours = Counter(size for image in sizes_of(draw(pipeline, 2000), grid) for size in image)
    shares = [
        sum(count for (height, width), count in sizes.items() if width > height) / sizes.total()
        for sizes in (documented, ours)
    ]
    assert shares == pytest.approx([wider, wider], abs=0.03)
    if name == "cifar10":  # the guide's first draw favours small targets, see `MultiContext`
        assert {size: count / ours.total() for size, count in ours.items()} == pytest.approx(
            {size: count / documented.total() for size, count in documented.items()}, abs=0.02
        )


# --- Nexus guide ---


@pytest.mark.parametrize("name", ["nexus_imagenet", "nexus_cifar10"])
def test_nexus_context_blocks_are_one_sequence_that_the_targets_avoid(name: str) -> None:
    pipeline = load(name)
    masks, blocks = draw(pipeline), draw(load(name, "predictor.target_sequences=separate"))
    assert masks.context.shape[1] == masks.target.shape[1] == 1
    assert blocks.target.shape[1] == 2
    for image in range(len(masks)):
        assert target_of(masks, image).isdisjoint(context_of(masks, image))


def test_nexus_groups_have_the_guide_s_learning_rates_and_weight_decays() -> None:
    pipeline = narrow(load("nexus_cifar10"))
    model = build_model(pipeline, 3)
    optimizer, schedules = build_optimizer(model, pipeline.optimizer), build_schedules(pipeline, steps_per_epoch=10)
    StepNumbers(optimizer, schedules, torch.device("cpu")).set(400)
    depth = len(model.context_encoder.blocks)
    rates = {group["lr"].item() for group in optimizer.param_groups}
    assert sorted(rates) == pytest.approx([1.5e-4 * 0.75**layer for layer in range(depth - 1, -1, -1)])
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    slowed = {names[id(p)] for group in optimizer.param_groups if group["lr_scale"] < 1 for p in group["params"]}
    assert all(name.startswith("context_encoder.blocks.") for name in slowed)  # not patch embedding and positions
    decays = {group.decay: group.weight_decay(schedules, 400) for group in scheduled_groups(optimizer)}
    assert decays == {Decay.ENCODER: 0.05, Decay.PREDICTOR: 0.04, Decay.NONE: 0.0}
    first, middle, last = (schedules.ema_momentum(step) for step in (1, 1501, 3001))
    assert (first, middle, last) == (pytest.approx(0.996), pytest.approx(0.998), pytest.approx(1.0))
    assert schedules.ema_momentum(301) < 0.996 + 0.1 * 0.004  # a cosine starts more slowly than a line


def test_nexus_predictor_has_half_of_vit_b() -> None:
    geometry = pipeline_geometry(load("nexus_imagenet"))
    assert [str(size) for size in (geometry.encoder, geometry.predictor)] == ["768x12x12", "384x6x12"]


def test_nexus_runs_clips_accumulates_watches_and_probes_with_few_labels_and_fine_tuning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts, norms = [], []
    forward = IJepa.forward

    def note_part(self: IJepa, images: torch.Tensor, *arguments: Any, **more: Any) -> Any:
        if torch.is_grad_enabled():
            parts.append(len(images))
        return forward(self, images, *arguments, **more)

    def note_norm(optimizer: torch.optim.Optimizer, refuse: torch.Tensor, shrinkage: torch.Tensor) -> None:
        gradients = [each.grad for group in optimizer.param_groups for each in group["params"]]
        norms.append(torch.cat([gradient.flatten() for gradient in gradients]).norm().item())
        gated_step(optimizer, refuse, shrinkage)

    monkeypatch.setattr(IJepa, "forward", note_part)
    monkeypatch.setattr(step_module, "gated_step", note_norm)
    # Summed over features, so that the gradients of so small an encoder are above the norm that they are clipped to.
    given = ("loss.over_features=sum", "encoder.size.embed_dim=48")
    outcome = smoke_run("nexus_cifar10", tmp_path, *SHORT, *given)
    metrics, rows = outcome.result["metrics"], training_rows(outcome)
    assert set(parts) == {16}  # of 32 images, in two parts
    assert max(row["train/encoder_gradient_norm"] for row in rows) > 1
    assert max(norms) == pytest.approx(1.0, abs=1e-4)
    monitored = [row.metrics for row in read_metrics(outcome.folder.metrics) if "monitor/rankme" in row.metrics]
    assert monitored
    assert all(row["train/skipped_steps"] == 0 for row in rows)
    for probe in ("low_shot_1", "low_shot_5", "finetune"):
        assert metrics[f"probe/{probe}_validation_accuracy"] is not None
    assert load_pipeline(outcome.folder.config).pipeline.probe.encoder == "context"


@pytest.mark.parametrize("name", ["nexus_imagenet", "nexus_cifar10"])
def test_nexus_predictor_has_no_positions_but_the_encoder_s(name: str) -> None:
    model = build_model(narrow(load(name)), 3)
    assert isinstance(model.predictor.position, PositionFromEncoder)
    assert not [*model.predictor.position.parameters()]
    assert isinstance(model.context_encoder.position, LearnedPosition)


def test_a_run_with_the_encoder_s_positions_is_resumed_as_if_it_had_not_been_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = ("encoder.position=learned", "predictor.position=from_encoder")
    whole = start_run(load_tiny(tmp_path, *chosen), tmp_path / "whole", ["test"])
    folder = killed_run(tmp_path, monkeypatch, 6, *chosen)
    assert_same_run(resume_run(folder, None, ["test"]).folder, whole.folder)
    assert "predictor.position.position_embedding" not in CheckpointStore(whole.folder.checkpoints).load().model


# --- Toy I-JEPA ---


def test_toy_learns_by_squared_distance(tmp_path: Path) -> None:
    pipeline = load("toy_cifar10")
    assert (pipeline.data.image_size, pipeline.encoder.patch_size) == (224, 16)
    assert (pipeline.loss.name, str(pipeline_geometry(pipeline).grid)) == ("l2", "14x14")
    losses = [
        row["train/loss"] for row in training_rows(smoke_run("toy_cifar10", tmp_path, *SHORT, "training.epochs=2"))
    ]
    assert losses[-1] < losses[0]


@pytest.mark.slow
def test_toy_runs_on_images_of_224_pixels_on_a_cpu(tmp_path: Path) -> None:
    given = ("data.dataset=digits", "data.max_images=100", "training.epochs=3", "training.batch_size=20")
    outcome = start_run(load_pipeline(PIPELINES / "toy_cifar10.yaml", (*ON_CPU, *given)), tmp_path, ["test"])
    assert outcome.result["status"] == "FINISHED"


def test_toy_masks_are_drawn_in_green_and_red_on_images_of_224_pixels(tmp_path: Path) -> None:
    out = tmp_path / "masks.png"
    file = str(PIPELINES / "toy_cifar10.yaml")
    result = CliRunner().invoke(
        main, ["masks", file, "data.dataset=digits", "data.max_images=100", "training.batch_size=16", "--out", str(out)]
    )
    assert result.exit_code == 0, result.output
    picture = torch.from_numpy(imread(out)[..., :3])
    tiles = picture[: len(picture) // 2].flatten(0, 1)  # the images; the heat maps are below
    for colour in (CONTEXT_COLOUR, TARGET_COLOUR):
        on_black = 0.5 * torch.tensor(colour) + 0.5 * 0.25  # the background of a digit, made paler
        assert ((tiles - on_black).abs().amax(dim=1) < 0.02).float().mean() > 0.02


# --- H-JEPA ---


@pytest.mark.parametrize("name", ["hjepa_imagenet", "hjepa_cifar10"])
def test_hjepa_has_levels_of_14_7_and_4_cells_and_rotary_positions_alone(name: str) -> None:
    pipeline = load(name)
    geometry = pipeline_geometry(pipeline)
    assert [str(grid) for grid in level_grids(geometry.grid, pipeline.hierarchy.num_levels)] == ["14x14", "7x7", "4x4"]
    model = build_model(narrow(pipeline), 3)
    for module in model.modules():
        if isinstance(module, PositionEmbedding):
            assert not [*module.parameters()]
            tokens, places = torch.zeros(1, 5, 8), torch.arange(5)[None]
            assert torch.equal(module.add(tokens, places), tokens)
            assert module.rotation(places) is not None
    encoder = model.context_encoder
    assert isinstance(encoder, VisionTransformer)
    scales = [value for key, value in encoder.named_parameters() if key.endswith("gamma")]
    assert scales
    assert all(torch.allclose(value, torch.full_like(value, 1e-5)) for value in scales)
    assert isinstance(model.hierarchy, Hierarchy)
    assert model.hierarchy.loss_weights == (1.0, 0.7, 0.5)
    assert model.hierarchy.context_pyramid.skip_connections


@pytest.mark.parametrize("name", ["hjepa_imagenet", "hjepa_cifar10"])
def test_hjepa_has_one_predictor_of_six_heads_for_all_levels(name: str) -> None:
    pipeline = load(name)
    assert pipeline_geometry(pipeline).predictor.num_heads == 6
    model = build_model(narrow(pipeline), 3)
    assert {id(parameter) for parameter in model.predictor_parameters()} == set(map(id, model.predictor.parameters()))
    predictors = [predictor for predictor, _ in model.hierarchy.predictors_beside(model.predictor)]
    assert [id(predictor) for predictor in predictors] == [id(model.predictor)] * 3


@pytest.mark.parametrize("name", ["hjepa_imagenet", "hjepa_cifar10"])
def test_hjepa_s_context_is_all_that_is_neither_target_nor_hidden(name: str) -> None:
    pipeline = load(name)
    masks, without = draw(pipeline, 512), draw(load(name, "masker.num_hidden_blocks=0"), 512)
    assert masks.target.shape[1] == 4
    for image in range(len(masks)):
        seen, target = set(context_of(masks, image)), target_of(masks, image)
        assert seen.isdisjoint(target)
        left = sorted(set(range(196)) - seen - target)
        rows, columns = {patch // 14 for patch in left}, {patch % 14 for patch in left}
        assert max(rows, default=0) - min(rows, default=0) <= 7  # one block of at most 0.2 * 196 patches
        assert max(columns, default=0) - min(columns, default=0) <= 7
        assert set(context_of(without, image)) | target_of(without, image) == set(range(196))
    hidden = without.context.counts().double().mean() - masks.context.counts().double().mean()
    assert 10 < hidden < 39


def test_hjepa_holds_the_momentum_for_its_warm_up() -> None:
    schedules = build_schedules(load("hjepa_imagenet"), steps_per_epoch=10)
    assert schedules.ema_momentum(1) == schedules.ema_momentum(100) == 0.996
    assert 0.996 < schedules.ema_momentum(200) < schedules.ema_momentum(900) < 1


def test_hjepa_runs_with_a_loss_a_level_and_keeps_config_and_losses(tmp_path: Path) -> None:
    outcome = smoke_run("hjepa_cifar10", tmp_path, *SHORT)
    rows = training_rows(outcome)
    for row in rows:
        levels = [row[f"train/loss_level_{level}"] for level in (1, 2, 3)]
        assert min(levels) > 0
        total = sum(weight * loss for weight, loss in zip((1.0, 0.7, 0.5), levels, strict=True))
        assert row["train/loss"] == pytest.approx(total, rel=1e-5)
    checkpoint = CheckpointStore(outcome.folder.checkpoints).load()
    assert not any(name.startswith("hierarchy.predictors.") for name in checkpoint.model)  # one, with rotary positions
    again = load_pipeline(outcome.folder.config).pipeline
    assert again.hierarchy.loss_weights == (1.0, 0.7, 0.5)
    assert again.training.activation_checkpointing
