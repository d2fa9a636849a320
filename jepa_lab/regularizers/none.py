"""No regulariser."""

from __future__ import annotations

from jepa_lab.regularizers.base import REGULARIZERS, Regularizer, Representations, Term


@REGULARIZERS.register(
    "none", summary="The prediction loss alone.", source="Assran et al. 2023, arXiv:2301.08243, sec. 3"
)
class NoRegularizer(Regularizer):
    """Adds nothing."""

    def terms(self, representations: Representations) -> dict[str, Term]:
        return {}
