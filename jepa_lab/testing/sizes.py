"""What every size of an encoder or a predictor keeps."""

from __future__ import annotations

import pytest

from jepa_lab.models.sizes import EncoderSize, ModelSize, PredictorSize
from jepa_lab.registry import ComponentParams, Entry
from jepa_lab.testing.components import ComponentContract


class EncoderSizeContract(ComponentContract):
    """Tests of an `EncoderSize`."""

    def test_heads_divide_the_width(self, entry: Entry[EncoderSize], params: ComponentParams) -> None:
        assert entry.component(params).resolve().check() is None


class PredictorSizeContract(ComponentContract):
    """Tests of a `PredictorSize`."""

    @pytest.mark.parametrize("encoder", [ModelSize(192, 6, 6), ModelSize(768, 12, 12)], ids=str)
    def test_heads_divide_the_width(
        self, entry: Entry[PredictorSize], params: ComponentParams, encoder: ModelSize
    ) -> None:
        assert entry.component(params).resolve(encoder).check() is None
