"""Measuring a model: at probe epochs (validation, fixed images and masks), and at the end (test, once per probe)."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import nn

from jepa_lab.build import PreparedData, build_model, build_sampler, probe_image_size
from jepa_lab.config.checks import check_component, pipeline_geometry
from jepa_lab.config.loading import HOW_IMAGES_ARE_READ, LoadedPipeline
from jepa_lab.config.pipeline import Pipeline
from jepa_lab.data.base import ImageSplit
from jepa_lab.data.images import Images, to_tensor
from jepa_lab.data.resident import normalize, to_float
from jepa_lab.grid import Grid
from jepa_lab.models.hierarchy import Hierarchy
from jepa_lab.models.ijepa import IJepa
from jepa_lab.models.pyramid_features import PyramidFeatures
from jepa_lab.models.vit import VisionTransformer
from jepa_lab.monitoring import curve_values, end_values, monitors_at_end, monitors_at_probe_epochs, some_images
from jepa_lab.monitors.base import curve_name
from jepa_lab.monitors.collapse import CollapseDetector, Observation, Verdict
from jepa_lab.monitors.observed import Observed
from jepa_lab.monitors.spectra import SPECTRA, Spectra
from jepa_lab.predicted_classes import PredictedScore, collected, digest_of, images_of_splits
from jepa_lab.probes.arrays import NUMPY, double_device, estimator_arrays
from jepa_lab.probes.base import PROBES, Probe, ProbeOutcome, Score, require_outcome
from jepa_lab.probes.extraction import frozen_autocast, images_at_once
from jepa_lab.probes.features import Autocast, extract_features
from jepa_lab.probes.kept import KeptOutcomes
from jepa_lab.probes.online import online_probe
from jepa_lab.probes.splits import ProbeSplits, labels_of
from jepa_lab.probes.subject import Subject
from jepa_lab.randomness import build_generator
from jepa_lab.runs.predictions import write_predictions
from jepa_lab.training.devices import Compute
from jepa_lab.training.evaluator import Evaluation

logger = logging.getLogger(__name__)

_MONITORED_IMAGES = 512


def chosen_encoder(model: IJepa, pipeline: Pipeline) -> VisionTransformer:
    """The encoder that `probe.encoder` chooses."""
    return {"target": model.target_encoder, "context": model.context_encoder}[pipeline.probe.encoder]


def probed_encoder(model: IJepa, pipeline: Pipeline, *, other: bool = False) -> VisionTransformer | PyramidFeatures:
    """What probes measure, for the patch grid of `probe.image_size`, with the model's very weights.

    The encoder that `probe.encoder` chooses, with the pyramid of its side where `probe.levels` reads it.

    Args:
        other: of the encoder that is not chosen.
    """
    is_target = (pipeline.probe.encoder == "target") != other
    encoder = encoder_at_probed_grid(model.target_encoder if is_target else model.context_encoder, pipeline)
    if pipeline.probe.levels is None:
        return encoder
    assert isinstance(model.hierarchy, Hierarchy), "checked with the configuration"
    pyramid = model.hierarchy.target_pyramid if is_target else model.hierarchy.context_pyramid
    return PyramidFeatures(encoder, pyramid.at_grid(encoder.grid), pipeline.probe.levels)


def encoder_record(pipeline: Pipeline, num_channels: int) -> dict[str, Any]:
    """What goes into the probed encoder and what comes out, as JSON values.

    Returns:
        `input_shape`: [C, H, W] of an image; `num_features`: numbers for each image, averaged over its patches.
    """
    side, width = probe_image_size(pipeline), pipeline_geometry(pipeline).encoder.embed_dim
    return {"input_shape": [num_channels, side, side], "num_features": pipeline.probe.num_widths * width}


def encoder_at_probed_grid(encoder: VisionTransformer, pipeline: Pipeline) -> VisionTransformer:
    image_size = probe_image_size(pipeline)
    if image_size == pipeline.data.image_size:
        return encoder
    side = image_size // pipeline.encoder.patch_size
    return encoder.at_grid(Grid(side, side))


@dataclass(frozen=True)
class ChosenProbe:
    """A probe of the pipeline.

    Attributes:
        key: where the pipeline chooses it. name: in the registry.
    """

    key: str
    name: str
    probe: Probe


def build_probes(pipeline: Pipeline) -> list[ChosenProbe]:
    """The probes of a pipeline, `probe.method` first."""
    chosen = {"probe.method": pipeline.probe.method}
    chosen |= {f"probe.additional.{number}": item for number, item in enumerate(pipeline.probe.additional)}
    entries = [(key, params, PROBES.entry_of(params)) for key, params in chosen.items()]
    return [ChosenProbe(key, entry.name, entry.component(params)) for key, params, entry in entries]


def validation_metrics(pipeline: Pipeline) -> list[str]:
    """The probes' numbers on the validation split that a run of this pipeline has in its result."""
    depth = pipeline_geometry(pipeline).encoder.depth
    method, *additional = build_probes(pipeline)
    names = [("", method.probe)] + [(f"{chosen.name}_", chosen.probe) for chosen in additional]
    return [
        f"probe/{name}{Score(None, None, key, measure=probe.measure).prefix}validation_{probe.measure}"
        for name, probe in names
        for key in probe.score_keys(depth)
    ]


def check_probes(loaded: LoadedPipeline, splits: ProbeSplits) -> None:
    """Refuse what the images do not allow; needs no features.

    Raises:
        ConfigError: with the place of the setting.
    """
    pipeline = loaded.pipeline
    probes = build_probes(pipeline)
    if not splits.has_labels:
        _refuse_probes_of_classes(loaded, probes)
    else:
        with loaded.located("probe"):
            splits.online_train(pipeline.probe.online_max_images)
    for chosen in probes:
        check_component(loaded, chosen.key, PROBES, chosen.probe.params, splits)


def _refuse_probes_of_classes(loaded: LoadedPipeline, probes: Sequence[ChosenProbe]) -> None:
    """Images whose pixels alone have classes are for probes that need no others.

    Raises:
        ConfigError: naming the first other one.
    """
    able = ", ".join(entry.name for entry in PROBES if not entry.component.needs_labels)
    for chosen in probes:
        if chosen.probe.needs_labels:
            raise loaded.error(
                chosen.key,
                f"{chosen.key}={chosen.name} tells classes of images apart, and these images have label maps alone; "
                f"set probe.method to a probe of label maps ({able}) and probe.additional to others of them, or to []",
            )


def refuse_probes_of_maps(loaded: LoadedPipeline) -> None:
    """Images without labels and label maps are not probed, unless somebody asked for their label maps.

    Raises:
        ConfigError: naming the first probe that was asked for.
    """
    for chosen in build_probes(loaded.pipeline):
        if not chosen.probe.needs_labels:
            raise loaded.error(
                chosen.key,
                f"{chosen.key}={chosen.name} needs the class of every pixel, and these images have no label maps; name "
                "images with label maps under probe.data, or leave the probe out",
            )


def probe_splits(data: PreparedData) -> ProbeSplits | None:
    """The splits that the probe works on, or None for images without labels and label maps.

    Raises:
        DataError: a class is missing from a split.
    """
    if data.train.labels is None and data.train.maps is None:
        return None
    return ProbeSplits(data.train, data.validation, data.test, data.class_names, data.mean, data.std)


@runtime_checkable
class HasPatches(Protocol):
    """An encoder that says how many patches of an image it sees."""

    @property
    def num_patches(self) -> int:
        """N."""


class OnlineEvaluation:
    """The evaluation at probe epochs; it never sees the test split.

    Validation loss and monitors are measured on the same images with the same masks at every epoch and for every
    seed, so that curves can be compared.
    """

    def __init__(
        self, pipeline: Pipeline, model: IJepa, data: PreparedData, probe_data: PreparedData, compute: Compute
    ) -> None:
        self.pipeline, self.model, self.data, self.compute = pipeline, model, data, compute
        self.detector = CollapseDetector(pipeline.collapse)
        self.spectra = Spectra()
        self.splits = probe_splits(probe_data)
        self.monitors = monitors_at_probe_epochs(pipeline)
        seed = pipeline.data.split_seed
        # Few enough to be held in memory, wherever the others are.
        self.images = to_tensor(some_images(data.validation.images, _MONITORED_IMAGES, seed, "monitored images"))
        sampler, generator = build_sampler(pipeline), build_generator(seed, "validation masks")
        # In batches of the training's size, on which `prefix` and `subset` depend.
        self.masks = [sampler.sample(len(part), generator) for part in self._parts()]

    @property
    def collapsed(self) -> bool:
        """Whether the features have been judged collapsed."""
        return self.detector.collapsed

    @property
    def warning(self) -> str | None:
        """What the last probe epoch was warned of."""
        return self.verdict.sentence()

    @property
    def verdict(self) -> Verdict:
        """How the features have been judged at the last probe epoch."""
        return self.detector.verdict()

    def evaluate(self) -> Evaluation:
        """Measure the model as it is now; draws nothing from the run's generators."""
        metrics: dict[str, float | None] = {"validation/loss": self._validation_loss()}
        observed = observed_images(self.pipeline, self.model, self.images, self.data, self.compute)
        num_images, _, width = observed.patches.shape  # few enough: what averages are made of is computed once
        metrics |= curve_values(self.monitors, observed)
        names = ("image_variance_ratio", "rankme", "rankme_centred")
        ratio, rank, centred_rank = (_number(metrics[curve_name(name)]) for name in names)
        seen = Observation(ratio, rank, centred_rank, num_images, width)
        self.spectra = self.spectra.then(observed.centred_singular_values, num_images)
        verdict = self.detector.observe(seen)
        metrics["monitor/collapsed"] = float(self.collapsed)
        accuracy = self._online_probe()
        if accuracy is not None:
            metrics["probe/online_validation_accuracy"] = accuracy
        return Evaluation(metrics, accuracy, verdict.sentence(), self.collapsed)

    def _parts(self) -> tuple[torch.Tensor, ...]:
        return self.images.split(self.pipeline.training.batch_size)

    @torch.no_grad()
    def _validation_loss(self) -> float:
        """Mean loss over the valid target patches of the monitored images."""
        device = self.compute.device
        mean, std = self.data.mean.to(device), self.data.std.to(device)
        count = torch.stack([self.model.count_targets(masks) for masks in self.masks]).sum(dim=0).to(device)
        total = torch.zeros((), device=device)
        for part, masks in zip(self._parts(), self.masks, strict=True):
            images = normalize(to_float(part.to(device)), mean, std)
            with self.compute.autocast():
                total += self.model(images, masks.to(device), count).loss.float()
        return total.item()

    def _online_probe(self) -> float | None:
        if self.splits is None or not self.splits.has_labels:
            return None
        settings, encoder, device = self.pipeline.probe, probed_encoder(self.model, self.pipeline), self.compute.device
        statistics, train = (self.data.mean, self.data.std), self.splits.online_train(settings.online_max_images)
        batch_size = extraction_size(self.pipeline, encoder, device)
        half = half_precision(self.compute)
        autocast = frozen_autocast(half, encoder, train.images, *statistics, settings.num_layers, device)

        def labelled(split: ImageSplit) -> tuple[torch.Tensor, torch.Tensor]:
            arguments = (*statistics, settings.num_layers, batch_size, device, autocast)
            features = extract_features(encoder, split.images, *arguments)
            assert split.labels is not None, "ProbeSplits has labels"
            return features, split.labels

        return online_probe(labelled(train), labelled(self.splits.validation), double_device(device))

    def state(self) -> dict[str, Any]:
        """The collapse detector's memory, and the spectra."""
        return {**self.detector.state(), SPECTRA: self.spectra.to_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over a checkpoint's memory."""
        self.detector.restore(state)
        self.spectra = Spectra.of(state)


def observed_images(pipeline: Pipeline, model: IJepa, images: Images, data: PreparedData, compute: Compute) -> Observed:
    """Images as monitors see them: through the encoder that is probed, at the size that it is trained at.

    Args:
        data: whose channel statistics hold.
    """
    encoder = chosen_encoder(model, pipeline)
    return Observed(
        encoder=encoder,
        images=images,
        mean=data.mean,
        std=data.std,
        batch_size=extraction_size(pipeline, encoder, compute.device),
        device=compute.device,
        sampler=build_sampler(pipeline),
        masked_at_once=pipeline.training.batch_size,
        seed=pipeline.data.split_seed,
    )


def final_monitors(pipeline: Pipeline, model: IJepa, data: PreparedData, compute: Compute) -> dict[str, float | None]:
    """What the monitors of the end read off the trained encoder; they need no labels.

    Args:
        data: what was trained on.
    Returns:
        Flat summary numbers.
    Raises:
        RunStopped: a feature is not finite.
    """
    settings = pipeline.monitors
    images = some_images(data.train.images, settings.max_train_images, pipeline.data.split_seed, "monitored training")
    return end_values(monitors_at_end(pipeline), observed_images(pipeline, model, images, data, compute))


def _number(value: float | None) -> float:
    assert value is not None, "measured for any features"
    return value


def final_evaluation(
    pipeline: Pipeline,
    model: IJepa,
    probe_data: PreparedData,
    compute: Compute,
    folder: Path,
    announce: Callable[[str], None] | None = None,
    timed: Callable[[str], AbstractContextManager[None]] | None = None,
    predictions: Path | None = None,
    draws: bool = True,
) -> tuple[dict[str, float | None], dict[str, Any]]:
    """Probe the trained encoder and the controls, see `probe_rows`."""
    untrained = build_model(pipeline, probe_data.train.images.shape[1]).to(compute.device)
    encoders: dict[str, nn.Module | None] = {"trained": probed_encoder(model, pipeline)}
    if pipeline.probe.both_encoders:
        encoders["other_encoder"] = probed_encoder(model, pipeline, other=True)
    encoders |= {"random_encoder": probed_encoder(untrained, pipeline), "raw_pixels": None}
    return probe_rows(pipeline, encoders, probe_data, compute, folder, announce, timed, predictions, draws)


def probe_rows(
    pipeline: Pipeline,
    encoders: Mapping[str, nn.Module | None],
    probe_data: PreparedData,
    compute: Compute,
    folder: Path,
    announce: Callable[[str], None] | None = None,
    timed: Callable[[str], AbstractContextManager[None]] | None = None,
    predictions: Path | None = None,
    draws: bool = True,
) -> tuple[dict[str, float | None], dict[str, Any]]:
    """Probe encoders; the test split is scored once per probe, or not at all.

    Args:
        encoders: row -> what is probed, on the device, with `last_layers`; None is raw pixels.
        folder: where the figures go; files that are too large for memory pass through it.
        announce: is told what is about to be probed, as some probes take minutes.
        timed: makes a context around all that a row takes.
        predictions: file for the class of every validation and test image; None keeps none.
        draws: whether probes draw what they have found.
    Returns:
        Flat summary numbers, and the details for result.json: `probe` by row and probe, `predictions`; or
        `probe_skipped`.
    """
    splits = probe_splits(probe_data)
    if splits is None:
        reason = "the probe was skipped: the images have no labels; name labelled ones under probe.data"
        logger.info(reason)
        return {}, {"probe": None, "probe_skipped": reason}
    if not pipeline.probe.score_test:
        splits = replace(splits, test=None)
    probes, kept = build_probes(pipeline), kept_outcomes(pipeline, probe_data, splits, compute)
    summary: dict[str, float | None] = {}
    rows: dict[str, dict[str, Any]] = {}
    predicted: dict[str, PredictedScore] = {}
    for row, encoder in encoders.items():
        apt = [chosen for chosen in probes if encoder is not None or not chosen.probe.needs_encoder]
        if announce is not None:
            what = "trained encoder" if row == "trained" else row.replace("_", " ")
            announce(f"probing {what}: {', '.join(chosen.name for chosen in apt)}")
        with nullcontext() if timed is None else timed(row):
            # One subject at a time: its features can be large.
            subject = build_subject(pipeline, splits, encoder, compute, folder)
            outcomes = {chosen.name: _outcome(chosen, subject, kept) for chosen in apt}
        summary |= _flat(row, probes[0], outcomes)
        predicted |= _predicted(row, probes[0].name, outcomes)
        rows[row] = {name: outcome.to_dict() for name, outcome in outcomes.items()}
        if row == "trained" and draws:
            for chosen in probes:
                chosen.probe.draw(outcomes[chosen.name], splits.class_names, folder)
    details = {"probe": rows, "probe_titles": {chosen.name: chosen.probe.title for chosen in probes}}
    if predictions is not None:
        found = collected(predicted, splits, images_of_splits(pipeline, probe_data.digest, splits))
        details["predictions"] = write_predictions(predictions, found)
    return summary, details


def _outcome(chosen: ChosenProbe, subject: Subject, kept: KeptOutcomes) -> ProbeOutcome:
    """What a probe finds; on raw pixels it may have been found by an earlier run."""

    def measure() -> ProbeOutcome:
        outcome = chosen.probe.run(subject)
        require_outcome(chosen.probe, outcome, subject.splits)
        return outcome

    return measure() if subject.encoder is not None else kept.of(chosen.name, chosen.probe, measure)


_OF_ENCODERS = {
    "encoder",
    "both_encoders",
    "layers",
    "levels",
    "every_epochs",
    "online_max_images",
    "method",
    "additional",
}
"""Settings of the `probe` section that raw pixels know nothing of, or that each probe knows by itself."""


def kept_outcomes(pipeline: Pipeline, probe_data: PreparedData, splits: ProbeSplits, compute: Compute) -> KeptOutcomes:
    """Where the outcomes on raw pixels are kept.

    The sections of the pipeline count as a whole, but for what is known to change nothing: a setting that is new to
    jepa-lab measures once more than needed, and an outcome of other images is never used.
    """
    parts = {"train": splits.train, "validation": splits.validation, "test": splits.test}
    images = {
        "digest": probe_data.digest,
        "class_names": probe_data.class_names,
        "shapes": {name: list(part.images.shape) for name, part in parts.items() if part is not None},
        "labels": {name: _labels_digest(part) for name, part in parts.items() if part is not None},
        "data": pipeline.data.model_dump(mode="json", exclude={"root", *HOW_IMAGES_ARE_READ}),
        "probe": pipeline.probe.model_dump(mode="json", exclude=_OF_ENCODERS),
    }
    arrays = "numpy" if estimator_arrays(compute.device) == NUMPY else "tensors"
    conditions = {"device": compute.describe(), "arrays": arrays}
    return KeptOutcomes(json.loads(json.dumps(images)), conditions, pipeline.seed)


def _labels_digest(part: ImageSplit) -> str | None:
    return None if part.labels is None else digest_of(labels_of(part))


def build_subject(
    pipeline: Pipeline, splits: ProbeSplits, encoder: nn.Module | None, compute: Compute, scratch: Path
) -> Subject:
    """What is probed: an encoder on the device, or raw pixels."""
    return Subject(
        splits=splits,
        encoder=encoder,
        num_layers=pipeline.probe.num_layers,
        depth=pipeline_geometry(pipeline).encoder.depth,
        patch_size=pipeline.encoder.patch_size,
        batch_size=extraction_size(pipeline, encoder, compute.device),
        device=compute.device,
        seed=pipeline.seed,
        scratch=scratch,
        autocast=compute.autocast,
        half=half_precision(compute),
    )


def extraction_size(pipeline: Pipeline, encoder: nn.Module | None, device: torch.device) -> int:
    """Images that features are extracted from at once; None is raw pixels."""
    values = 0
    if isinstance(encoder, HasPatches):
        values = encoder.num_patches * pipeline_geometry(pipeline).encoder.embed_dim
    return images_at_once(pipeline.probe.batch_size, device, values)


def half_precision(compute: Compute) -> Autocast | None:
    """What frozen encoders may run in: bfloat16 on a GPU that trains in it.

    A CPU emulates it or gains little, and whoever asks for training.precision=fp32 measures in it, too.
    """
    return compute.autocast if compute.device.type == "cuda" and compute.precision == "bf16" else None


def _flat(row: str, method: ChosenProbe, outcomes: Mapping[str, ProbeOutcome]) -> dict[str, float | None]:
    """The numbers of a row, flat; those of the method are there also where it does not measure the row."""
    prefix = _prefix(row, method.name, method.name)
    none = Score(None, None, measure=method.probe.measure).metrics()
    flat: dict[str, float | None] = {f"{prefix}{metric}": value for metric, value in none.items()}
    for name, outcome in outcomes.items():
        prefix = _prefix(row, method.name, name)
        flat |= {f"{prefix}{metric}": value for metric, value in outcome.metrics().items()}
    return flat


def _predicted(row: str, method: str, outcomes: Mapping[str, ProbeOutcome]) -> dict[str, PredictedScore]:
    """The predictions of a row, by what the names of their accuracies have in common."""
    return {
        f"{_prefix(row, method, name)}{score.prefix}": PredictedScore(
            "/".join(filter(None, (row, name, score.key))), outcome.predictions[score.key]
        )
        for name, outcome in outcomes.items()
        for score in outcome.scores
        if score.key in outcome.predictions
    }


def _prefix(row: str, method: str, name: str) -> str:
    """What the flat numbers of a probe begin with; the method's bear no name."""
    return f"{'probe' if row == 'trained' else row}/{'' if name == method else f'{name}_'}"
