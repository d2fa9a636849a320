"""The captured step, on a stand-in for CUDA graphs: it takes the very steps that the uncaptured one takes."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from jepa_lab.errors import DeviceError
from jepa_lab.losses.l2 import L2Loss
from jepa_lab.models.packing import FixedSizes, PackedSizes
from jepa_lab.testing.steps import whole_step
from jepa_lab.training.capture import CapturedStep, CudaGraphs
from jepa_lab.training.checkpoint import optimizer_tensors, restore_optimizer
from jepa_lab.training.whole_step import WholeStep
from tests.integration.pipelines import load_tiny
from tests.recorded_graph import Recorder
from tests.whole_steps import captured

CPU = torch.device("cpu")


def state(step: WholeStep) -> dict[str, Tensor]:
    """Everything that steps change."""
    model, moments = step.step.model, step.step.optimizer.state
    tensors = dict(model.named_parameters()) | dict(model.named_buffers()) | step.step.gate.state() | step.sums.state()
    for name, parameter in model.named_parameters():
        tensors |= {f"{name}/{key}": value for key, value in moments.get(parameter, {}).items()}
    for number, generator in enumerate([*step.batches.generators(), step.batches.masks.generator]):
        tensors[f"generator {number}"] = generator.get_state()
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def assert_same(first: dict[str, Tensor], second: dict[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def take(step: WholeStep, numbers: range) -> list[dict[str, float]]:
    """What the log would read after each step."""
    read = []
    for number in numbers:
        outcome = step(step.batches.next_images(), number)
        found = outcome.statistics
        named = {name: value.item() for name, value in found.terms.items()}
        norms = {"encoder": found.encoder_gradient_norm.item(), "predictor": found.predictor_gradient_norm.item()}
        patches = outcome.masks.context.counts().float().mean().item()
        read.append(named | norms | {"loss": found.loss.item(), "refused": found.refused.item(), "patches": patches})
    return read


SETTINGS = [
    ("masker=multi_block", "masker.min_context_patches=1"),
    ("masker=random", "context_batching=subset", "optimizer.layer_decay=0.8", "encoder.size.depth=2"),
    ("masker=random", "training.gradient_clip_norm=0.01", "optimizer.final_weight_decay=0.4"),
    ("masker=random", "encoder.drop_path_rate=0.3", "encoder.size.depth=2", "training.accumulation_steps=2"),
    ("masker=random", "regularizer=vicreg", "hierarchy.num_levels=2", "augmentation=strong"),
    ("masker=random", "ema_momentum={name: cosine, start: 0.5, end: 1.0}", "training.activation_checkpointing=true"),
]


@pytest.mark.parametrize("overrides", SETTINGS, ids=lambda overrides: overrides[-1])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_captured_step_takes_the_very_steps_of_an_uncaptured_one(
    tmp_path: Path, overrides: tuple[str, ...], precision: str
) -> None:
    pipeline = load_tiny(tmp_path, "data.image_size=16", *overrides).pipeline
    plain = whole_step(pipeline, precision)
    replayed, recorder = captured(whole_step(pipeline, precision))
    assert take(replayed, range(1, 8)) == take(plain, range(1, 8))
    assert_same(state(replayed), state(plain))
    assert recorder.replays == 7
    assert 1 <= recorder.captures < 7, "one graph for each size of the buffers that occurred"


def test_the_gate_of_a_captured_step_shuts_and_stays_shut(tmp_path: Path) -> None:
    pipeline = load_tiny(tmp_path, "data.image_size=16", "masker=random").pipeline
    plain = whole_step(pipeline)
    replayed, _ = captured(whole_step(pipeline))
    for step in (plain, replayed):
        take(step, range(1, 4))
        good = step.batches.std.clone()
        step.batches.std.fill_(float("nan"))
        take(step, range(4, 6))
        step.batches.std.copy_(good)
        found = take(step, range(6, 8))
        assert [each["refused"] for each in found] == [1, 1]
        assert step.step.gate.stopped_at == 4
        assert step.sums.skipped == 4
    assert_same(state(replayed), state(plain))


def test_a_captured_step_skips_batches_that_are_not_finite_and_goes_on(tmp_path: Path) -> None:
    chosen = ("data.image_size=16", "masker=random", "training.max_skipped_batches=2")
    pipeline = load_tiny(tmp_path, *chosen).pipeline
    plain = whole_step(pipeline)
    replayed, _ = captured(whole_step(pipeline))
    for step in (plain, replayed):
        take(step, range(1, 4))
        good, weights = step.batches.std.clone(), next(step.step.model.parameters()).clone()
        step.batches.std.fill_(float("nan"))
        take(step, range(4, 6))
        assert torch.equal(next(step.step.model.parameters()), weights)
        step.batches.std.copy_(good)
        found = take(step, range(6, 8))
        assert [each["refused"] for each in found] == [0, 0]
        assert not torch.equal(next(step.step.model.parameters()), weights)
        assert (int(step.step.gate.stopped_at), step.sums.skipped_steps()) == (0, 2)
    assert_same(state(replayed), state(plain))


def test_a_captured_step_follows_a_checkpoint_that_was_restored_before_its_first_step(tmp_path: Path) -> None:
    pipeline = load_tiny(tmp_path, "data.image_size=16", "masker=random", "optimizer.final_weight_decay=0.4").pipeline
    whole, _ = captured(whole_step(pipeline))
    take(whole, range(1, 4))
    left, position = state(whole), whole.batches.position()
    generators = whole.batches.state(position)
    moments = optimizer_tensors(whole.step.model, whole.step.optimizer)
    moments = {name: tensor.clone() for name, tensor in moments.items()}
    expected = take(whole, range(4, 7))

    resumed, _ = captured(whole_step(pipeline))
    model = resumed.step.model
    model.load_state_dict({name: left[name] for name in model.state_dict()})
    restore_optimizer(model, resumed.step.optimizer, moments)
    resumed.sums.restore(left)
    resumed.step.gate.restore(left)
    resumed.batches.restore(position.epoch, position.batch, generators)
    assert take(resumed, range(4, 7)) == expected
    assert_same(state(resumed), state(whole))


def reads(loss: Tensor, calls: list[int]) -> Tensor:
    return loss * float(loss.detach().mean() > -1)


def counts(loss: Tensor, calls: list[int]) -> Tensor:
    return loss * (1 + 0.1 * len(calls))


def branches(loss: Tensor, calls: list[int]) -> Tensor:
    return loss.exp() if len(calls) % 2 else loss + 1


CENTRE: list[Tensor] = []


def replaces(loss: Tensor, calls: list[int]) -> Tensor:
    """As a running mean is often written: every step makes a new tensor of the last one."""
    before = CENTRE[-1] if len(calls) > 1 else torch.zeros(())
    CENTRE.append(0.9 * before + loss.detach().mean())
    return loss - CENTRE[-1]


UNCAPTURABLE = [
    (reads, "it makes the host wait for the device"),
    (counts, "the numbers or tensors that Python gives it change from step to step"),
    (branches, "the operators that Python gives it change from step to step"),
    (replaces, "the numbers or tensors that Python gives it change from step to step"),
]


def change_loss(patch: pytest.MonkeyPatch, change: Callable[[Tensor, list[int]], Tensor]) -> None:
    per_patch, calls = L2Loss.per_patch, []  # type: ignore[var-annotated]

    def changed(self: L2Loss, predicted: Tensor, wanted: Tensor) -> Tensor:
        calls.append(1)
        return change(per_patch(self, predicted, wanted), calls)

    patch.setattr(L2Loss, "per_patch", changed)


@pytest.mark.parametrize(("change", "reason"), UNCAPTURABLE, ids=lambda each: getattr(each, "__name__", ""))
def test_what_cannot_be_captured_is_told_once_with_its_place_and_runs_uncaptured(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    change: Callable[[Tensor, list[int]], Tensor],
    reason: str,
) -> None:
    change_loss(monkeypatch, change)
    pipeline = load_tiny(tmp_path, "data.image_size=16", "masker=random", "loss=l2").pipeline
    step, recorder = captured(whole_step(pipeline))
    with caplog.at_level(logging.WARNING):
        first = take(step, range(1, 3))
        take(step, range(3, 5))
    (record,) = caplog.records
    assert reason in record.getMessage()
    assert f"{Path(__file__).name}:" in record.getMessage()
    assert recorder.captures == 0
    assert all(row["refused"] == 0 for row in first)


@pytest.mark.parametrize(("change", "reason"), UNCAPTURABLE, ids=lambda each: getattr(each, "__name__", ""))
def test_where_a_capture_is_asked_for_what_cannot_be_captured_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Tensor, list[int]], Tensor], reason: str
) -> None:
    change_loss(monkeypatch, change)
    pipeline = load_tiny(tmp_path, "data.image_size=16", "masker=random", "loss=l2").pipeline
    step, _ = captured(whole_step(pipeline), required=True)
    with pytest.raises(DeviceError, match=f"training.capture=on: .*{reason}.*training.capture=auto"):
        take(step, range(1, 2))


def test_without_the_watch_a_graph_would_repeat_a_python_number_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stand-in for graphs is as blind as they are: a negative control of the tests above."""
    change_loss(monkeypatch, counts)
    pipeline = load_tiny(tmp_path, "data.image_size=16", "masker=random", "loss=l2").pipeline
    plain = take(whole_step(pipeline), range(1, 6))
    monkeypatch.setattr("jepa_lab.training.capture.objections_to_capture", lambda work: [])
    replayed, _ = captured(whole_step(pipeline))
    assert take(replayed, range(1, 6)) != plain


class Refused(Recorder):
    """A capture that fails although the step ran before."""

    def __init__(self, error: RuntimeError) -> None:
        super().__init__()
        self.error = error

    def capture(self, work: Callable[[], Any], generators: list[torch.Generator]) -> Any:
        raise self.error


def test_what_only_cuda_refuses_to_capture_is_told_with_the_remedy_and_no_bug_of_ours(tmp_path: Path) -> None:
    pipeline = load_tiny(tmp_path, "data.image_size=16", "masker=random").pipeline
    refused = Refused(RuntimeError("\nCUDA error: operation not permitted when stream is capturing\nCompile with"))
    step, _ = captured(whole_step(pipeline), recorder=refused)
    with pytest.raises(DeviceError, match=r"\(CUDA error: [a-z ]*\); the traceback .*training.capture=off") as caught:
        take(step, range(1, 2))
    assert caught.value.exit_code == 2


def test_memory_that_runs_out_in_a_capture_stays_an_error_of_memory(tmp_path: Path) -> None:
    pipeline = load_tiny(tmp_path, "data.image_size=16", "masker=random").pipeline
    step, _ = captured(whole_step(pipeline), recorder=Refused(torch.OutOfMemoryError("CUDA out of memory")))
    with pytest.raises(torch.OutOfMemoryError):
        take(step, range(1, 2))


def test_every_replay_advances_the_generators_that_the_step_draws_from(tmp_path: Path) -> None:
    overrides = ("masker=random", "encoder.drop_path_rate=0.3", "encoder.size.depth=2")
    whole, given = whole_step(load_tiny(tmp_path, "data.image_size=16", *overrides).pipeline), []

    class Watching(Recorder):
        def capture(self, work: Callable[[], Any], generators: list[torch.Generator]) -> Any:
            given.append(generators)
            return super().capture(work, generators)

    step, _ = captured(whole, recorder=Watching())
    take(step, range(1, 2))
    assert whole.batches.drop_path is not None
    assert given == [
        [whole.batches.masks.generator],
        [whole.batches.augmentation_generator, whole.batches.drop_path.generator],
    ]


def test_the_optimizer_is_told_of_captures_alone(tmp_path: Path) -> None:
    """It refuses a capture that it was not told of, and warns of steps that are none."""
    pipeline = load_tiny(tmp_path, "data.image_size=16", "masker=multi_block", "context_batching=prefix").pipeline
    whole, told = whole_step(pipeline), dict[str, list[bool]](warm_up=[], capture=[])

    class Watching(Recorder):
        def warm_up(self, work: Callable[[], object]) -> None:
            told["warm_up"] += [group["capturable"] for group in whole.step.optimizer.param_groups]
            super().warm_up(work)

        def capture(self, work: Callable[[], Any], generators: list[torch.Generator]) -> Any:
            if self.warm_ups > 1:  # the first was that of drawing masks
                told["capture"] += [group["capturable"] for group in whole.step.optimizer.param_groups]
            return super().capture(work, generators)

    step, recorder = captured(whole, recorder=Watching())
    take(step, range(1, 8))
    assert recorder.captures > 1
    assert not any(told["warm_up"])
    assert all(told["capture"])


def test_masks_that_must_be_looked_at_while_they_are_drawn_are_an_objection(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    crowded = ("masker=multi_block", "masker.context_scale=[0.3, 0.6]", "masker.min_context_patches=12")
    pipeline = load_tiny(tmp_path, "data.image_size=16", *crowded).pipeline
    step, recorder = captured(whole_step(pipeline))
    with caplog.at_level(logging.WARNING):
        take(step, range(1, 2))
    assert "redraw.py:" in caplog.records[0].getMessage()
    assert recorder.captures == 0


def test_the_body_of_a_compiled_step_is_watched_as_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    pipeline = load_tiny(tmp_path, "data.image_size=16", "masker=random", "loss=l2").pipeline
    step = whole_step(pipeline, compiled=True)
    assert step.step.forward is not step.step.model
    replayed, recorder = captured(step)
    assert take(replayed, range(1, 4)) == take(whole_step(pipeline), range(1, 4))
    assert recorder.captures >= 1
    change_loss(monkeypatch, counts)
    step, recorder = captured(whole_step(pipeline, compiled=True))
    take(step, range(1, 3))
    assert recorder.captures == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("overrides", SETTINGS, ids=lambda overrides: overrides[-1])
def test_on_a_gpu_a_captured_step_agrees_with_an_uncaptured_one(
    tmp_path: Path, overrides: tuple[str, ...], compiled: bool
) -> None:
    device = torch.device("cuda", torch.cuda.device_count() - 1)  # not the current one, where there are several
    pipeline = load_tiny(tmp_path, "data.image_size=16", *overrides).pipeline
    plain = whole_step(pipeline, "bf16", compiled=compiled, device=device)
    replayed = whole_step(pipeline, "bf16", compiled=compiled, device=device, capture=True)
    assert isinstance(replayed, CapturedStep)
    expected, found = take(plain, range(1, 31)), take(replayed, range(1, 31))
    assert replayed.captured
    for one, other in zip(expected, found, strict=True):
        assert other == pytest.approx(one, rel=1e-3, abs=1e-5)
    for name, tensor in state(plain).items():
        assert torch.allclose(tensor.double(), state(replayed)[name].double(), rtol=1e-2, atol=1e-3), name


class FakeCuda:
    """What `CudaGraphs` asks of PyTorch, in order."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.cuda = self
        self.graphs = 0

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def note(*arguments: Any, **more: Any) -> FakeCuda:
            shown = [str(each) for each in (*arguments, *more.values()) if isinstance(each, str | torch.Generator)]
            self.asked.append(" ".join([name, *(["generator"] if "Generator" in str(shown) else shown)]))
            return self

        return note

    def graph(self, graph: FakeCuda, pool: str | None, capture_error_mode: str) -> FakeCuda:
        self.asked.append(f"graph in pool {pool}, errors {capture_error_mode}")
        return self

    def pool(self) -> str:
        self.graphs += 1
        return f"of graph {self.graphs}"

    def __enter__(self) -> None:
        self.asked.append("begin")

    def __exit__(self, *error: object) -> None:
        self.asked.append("end")


def test_a_capture_registers_generators_first_is_of_its_device_and_shares_the_memory_of_the_one_before(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = FakeCuda()
    monkeypatch.setattr("jepa_lab.training.capture.torch", fake)
    graphs = CudaGraphs(CPU)
    for _ in range(2):
        graphs.capture(lambda: fake.asked.append("work"), [torch.Generator()])
    once = ["CUDAGraph", "register_generator_state generator", "device", "begin"]
    within = ["begin", "work", "end", "end"]
    assert fake.asked == [
        *(*once, "graph in pool None, errors thread_local", *within),
        *(*once, "graph in pool of graph 1, errors thread_local", *within),
    ]


def test_warming_up_happens_on_a_stream_of_its_own_that_waits_and_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fake = FakeCuda()
    monkeypatch.setattr("jepa_lab.training.capture.torch", fake)
    CudaGraphs(CPU).warm_up(lambda: fake.asked.append("work"))
    assert fake.asked == [
        *("Stream", "current_stream", "wait_stream", "stream", "begin", "work", "work", "work", "end"),
        *("wait_stream", "synchronize"),
    ]


def test_a_step_whose_tokens_were_cut_off_is_refused(tmp_path: Path) -> None:
    step = whole_step(load_tiny(tmp_path, "data.image_size=16", "masker=multi_block").pipeline)
    drawn = step.prepared(1)
    assert step.on_device(step.batches.next_images(), drawn).statistics.refused == 0
    before = state(step)
    few = FixedSizes((PackedSizes(64, 64, 64),), has_kernel=False)
    outcome = step.on_device(step.batches.next_images(), replace(drawn, packer=few))
    assert outcome.statistics.refused == 1
    weights = [name for name, _ in step.step.model.named_parameters()]
    assert all(torch.equal(before[name], state(step)[name]) for name in weights)


def test_a_buffer_that_steps_change_in_place_is_that_of_the_steps_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a component keeps a running mean that a graph can follow; rehearsals leave no trace in it."""
    pipeline = load_tiny(tmp_path, "data.image_size=16", "masker=random", "loss=l2").pipeline
    plain, (replayed, recorder) = whole_step(pipeline), captured(whole_step(pipeline))
    centres = iter((torch.zeros(()), torch.zeros(())))
    for step in (plain, replayed):
        step.step.model.register_buffer("centre", next(centres))
        centre = step.step.model.get_buffer("centre")
        with monkeypatch.context() as patch:
            change_loss(
                patch, lambda loss, calls, own=centre: loss + 0 * own.mul_(0.9).add_(0.1 * loss.detach().mean())
            )
            take(step, range(1, 6))
    assert recorder.captures >= 1
    assert state(plain)["centre"] > 0
    assert_same(state(replayed), state(plain))
