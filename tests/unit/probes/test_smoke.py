"""What probes say about themselves when the smoke preset has shortened them."""

from __future__ import annotations

from pathlib import Path

import pytest

import jepa_lab.config.pipeline  # noqa: F401  (registers every probe)
from jepa_lab.config.presets import PRESETS
from jepa_lab.probes.base import PROBES
from jepa_lab.probes.finetune import Finetune
from jepa_lab.testing.subjects import make_subject, splits_with_maps
from tests.unit.probes.fakes import FakeEncoder


@pytest.mark.parametrize("name", [entry.name for entry in PROBES])
def test_nobody_is_advised_to_extend_what_the_smoke_preset_cut_short(name: str, tmp_path: Path) -> None:
    overlay = PRESETS["smoke"]({"probe": {"additional": [{"name": name}]}}, False)
    shortened = dict(overlay.get("probe.additional", [{"name": name}])[0])
    component = PROBES.get(shortened.pop("name")).component
    outcome = component(component.Params(**shortened)).run(
        make_subject(FakeEncoder(), splits_with_maps(), scratch=tmp_path)
    )
    assert not [note for note in outcome.notes if "extend" in note or "raise epochs" in note]


def test_several_epochs_of_which_the_last_is_best_are_advised_to_be_raised(tmp_path: Path) -> None:
    params = {"batch_size": 30, "learning_rate": 0.05, "augmentation": None}
    notes = {
        epochs: Finetune(Finetune.Params(epochs=epochs, **params)).run(make_subject(FakeEncoder())).notes
        for epochs in (1, 2)
    }
    assert notes[1] == ()
    assert notes[2] in ((), ("the last epoch (2) is the best one; raise epochs",))
