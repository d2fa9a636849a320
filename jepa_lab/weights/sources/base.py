"""Where encoders come from: a text that a user gives is recognised by one kind of source."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch

from jepa_lab.errors import ConfigError
from jepa_lab.models.sizes import ENCODER_SIZES, ModelSize
from jepa_lab.registry import Component, ComponentParams, Registry
from jepa_lab.weights.foreign_weights import ForeignEncoder

Which = Literal["target", "context"]
"""One of the two encoders of I-JEPA."""


@dataclass(frozen=True)
class SourceContext:
    """What is known beside the text.

    Attributes:
        roots: folders of run folders, whose names may be given.
        size: of the encoder that the weights are for; it says how many heads there are where a file does not.
        uri: tracking URI; None for the usual one.
        encoder: which one of a source that holds both.
        step: of the checkpoint, for a source that holds several; None for the last one.
    """

    roots: Sequence[Path] = ()
    size: ModelSize | None = None
    uri: str | None = None
    encoder: Which = "target"
    step: int | None = None

    def heads_of_width(self, width: int) -> int | None:
        """Attention heads of an encoder of this width: those of the pipeline, else of the sizes that have names."""
        if self.size is not None and self.size.embed_dim == width:
            return self.size.num_heads
        named = [entry.component(entry.params_type()) for entry in ENCODER_SIZES if entry.name != "custom"]
        sizes = [size for size in (each.resolve() for each in named) if size.embed_dim == width]
        # ViT-Ti is the published one of its width.
        return min((size.num_heads for size in sizes), default=None)


class WeightSource(Component[None], ABC):
    """A kind of place that holds the weights of an encoder.

    Attributes:
        may_hold_both: whether such a place may hold the context encoder beside the target encoder.
        has_steps: whether it holds the checkpoints of several steps.
    """

    may_hold_both: ClassVar[bool] = False
    has_steps: ClassVar[bool] = False

    def __init__(self, params: ComponentParams) -> None:
        self.params = params

    @abstractmethod
    def recognises(self, text: str, context: SourceContext) -> bool:
        """Whether this text means such a place; cheap, and about no more than one kind."""

    @abstractmethod
    def load(self, text: str, context: SourceContext) -> ForeignEncoder:
        """Read the encoder.

        Raises:
            ConfigError, RunFolderError: it cannot be used, and why.
        """


WEIGHT_SOURCES: Registry[WeightSource] = Registry("weight_source", WeightSource)


def load_source(text: str, context: SourceContext) -> ForeignEncoder:
    """The encoder that a text means; PyTorch's global generator is left as it was.

    Raises:
        ConfigError: no kind of source recognises it, or its encoder cannot be used.
    """
    for entry in WEIGHT_SOURCES:
        source = entry.component(entry.params_type())
        if source.recognises(text, context):
            _check_choices(text, source, context)
            with torch.random.fork_rng(devices=[]):  # modules draw first weights from it, which are then replaced
                return source.load(text, context)
    raise ConfigError(
        f"{text} is not a run, a folder of a model, a file of weights or a model in the hub cache of Hugging Face; "
        "to use a model of a hub fetch its config.json and model.safetensors into a folder and give the folder "
        "(`jepa-lab list weight_source` has all kinds of sources)"
    )


def _check_choices(text: str, source: WeightSource, context: SourceContext) -> None:
    """Raises:
    ConfigError: a choice among encoders or checkpoints, and there is one alone.
    """
    if context.encoder == "context" and not source.may_hold_both:
        raise only_one_encoder(text)
    if context.step is not None and not source.has_steps:
        raise ConfigError(f"{text} holds the weights of one step alone, got step {context.step}; leave the step out")


def only_one_encoder(text: str) -> ConfigError:
    """The error for a context encoder that is not there."""
    return ConfigError(f"{text} holds one encoder alone, and no context encoder beside it; leave the choice out")
