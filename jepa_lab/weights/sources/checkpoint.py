"""A file of weights: a released I-JEPA checkpoint, or the state dictionary of a timm model."""

from __future__ import annotations

from pathlib import Path

from jepa_lab.weights.foreign_weights import ForeignEncoder, Origin
from jepa_lab.weights.sources.base import WEIGHT_SOURCES, SourceContext, WeightSource, only_one_encoder
from jepa_lab.weights.state_files import TENSOR_FILES, read_tensor_file, tensors_of
from jepa_lab.weights.timm_names import from_timm_names, width_of

RELEASED = "target_encoder"
_RELEASED_CONTEXT = "encoder"
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@WEIGHT_SOURCES.register(
    "checkpoint",
    summary="A file of weights: a released I-JEPA checkpoint (its target encoder), or a timm model's state dictionary.",
    source="the released I-JEPA code; timm",
)
class CheckpointSource(WeightSource):
    """The file does not say how many heads there are: the pipeline does, or the width is that of a named size."""

    may_hold_both = True

    def recognises(self, text: str, context: SourceContext) -> bool:
        return Path(text).suffix in TENSOR_FILES

    def load(self, text: str, context: SourceContext) -> ForeignEncoder:
        file = Path(text)
        content = read_tensor_file(file)
        released = RELEASED in content
        if context.encoder == "context" and not (released and _RELEASED_CONTEXT in content):
            raise only_one_encoder(text)
        of_release = RELEASED if context.encoder == "target" else _RELEASED_CONTEXT
        state = tensors_of(content, of_release if released else "state_dict", file)
        # The released code normalises by ImageNet's statistics; other files do not say it.
        mean, std = _IMAGENET if released else (None, None)
        origin = Origin(text, context.heads_of_width(width_of(state, text)), mean=mean, std=std)
        return from_timm_names(state, origin)
