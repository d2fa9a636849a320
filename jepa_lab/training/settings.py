"""The `training` section of a pipeline."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from jepa_lab.errors import Key
from jepa_lab.registry import ComponentParams, broken_rule
from jepa_lab.training.compiling import CompileChoice

Precision = Literal["auto", "fp32", "bf16", "fp16"]


class TrainingSettings(ComponentParams):
    """Length, batch, device and bookkeeping of pretraining."""

    epochs: int = Field(100, ge=1, le=1_000_000, strict=True, description="Passes over the training images.")
    batch_size: int = Field(256, ge=1, strict=True, description="Images of one optimizer step, all processes together.")
    accumulation_steps: int = Field(
        1,
        ge=1,
        strict=True,
        description="Parts that a batch is computed in, to save memory; must divide batch_size. The step is that of "
        "the whole batch to rounding; only what is a statistic of a batch (batch-normalised targets, a regulariser's "
        "variance and covariance) is then that of a part.",
    )
    gradient_clip_norm: float | None = Field(
        None, gt=0, description="Largest norm of all gradients together; null does not clip."
    )
    device: str = Field("auto", description="auto (CUDA, then MPS, then CPU), or a torch device such as cuda:1.")
    precision: Precision = Field(
        "auto", description="auto is bf16 where the device computes in it, else fp32; fp16 scales the loss."
    )
    compile: CompileChoice = Field(
        "auto",
        description="torch.compile the model; auto: on CUDA, from 3,000 steps on, which is where it pays.",
    )
    capture: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Capture the whole step as one CUDA graph, so that the GPU never waits for Python: where the step "
        "can be captured and one process trains (auto), or else it is an error (on).",
    )
    activation_checkpointing: bool = Field(
        False,
        strict=True,
        description="Compute each block again in the backward pass instead of keeping its activations: less memory, "
        "about a third more time, the same step.",
    )
    max_skipped_batches: int | None = Field(
        None,
        ge=0,
        le=1_000_000,
        strict=True,
        description="Batches in a row that are skipped, without any change of weights, because loss or gradients are "
        "not finite; one more ends the run (exit code 3). Null is 0, and 19 under fp16, which finds its loss scale so.",
    )
    num_threads: int | None = Field(
        None, ge=1, le=1024, strict=True, description="CPU threads; null leaves torch's choice."
    )
    log_every_steps: int = Field(10, ge=1, strict=True, description="Steps between rows of metrics.")
    checkpoint_every_steps: int = Field(500, ge=1, strict=True, description="Steps between checkpoints.")
    stop_on_collapse: bool = Field(
        False,
        strict=True,
        description="End the run (exit code 3) when its features are judged collapsed. In a sweep this is on for the "
        "points of a search, and off for all that enters a table.",
    )

    @model_validator(mode="after")
    def _check(self) -> TrainingSettings:
        if self.batch_size % self.accumulation_steps:
            raise broken_rule(
                Key("accumulation_steps"),
                " must divide ",
                Key("batch_size"),
                f", got {self.accumulation_steps} and {self.batch_size}",
            )
        return self
