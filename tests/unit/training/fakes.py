"""Stand-ins for what the training loop works with: they note what they are asked, and take no time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from jepa_lab.data.order import Batch, BatchPosition
from jepa_lab.maskers.base import Masks
from jepa_lab.maskers.patches import Patches
from jepa_lab.models.levels import PatchesAlone
from jepa_lab.training.checkpointer import TrainingState
from jepa_lab.training.devices import Compute
from jepa_lab.training.evaluator import Evaluation
from jepa_lab.training.finite import FiniteGate, StepSums
from jepa_lab.training.phases import PhaseSeconds
from jepa_lab.training.pretrain import Pretraining
from jepa_lab.training.progress import PlainDisplay
from jepa_lab.training.step import StepStatistics
from jepa_lab.training.team import Alone
from jepa_lab.training.timetable import Timetable
from jepa_lab.training.training_log import TrainingLog
from jepa_lab.training.whole_step import StepOutcome

CPU = torch.device("cpu")
ZERO = torch.zeros(())


class FakeSchedules:
    """Constant."""

    def learning_rate(self, step: int) -> float:
        return 0.1

    def weight_decay(self, step: int) -> float:
        return 0.0

    def ema_momentum(self, step: int) -> float:
        return 0.9


class FakeStep:
    """What the loop asks of a step apart from taking it."""

    def __init__(self) -> None:
        self.compute = Compute(CPU, "fp32", compile=False)
        self.gate = FiniteGate.open(CPU, "fp32")
        self.numbers = SimpleNamespace(schedules=FakeSchedules())
        self.model = SimpleNamespace(hierarchy=PatchesAlone())


class FakeWholeStep:
    """Notes the steps it was given; the loss of a step is its number."""

    def __init__(self, events: list[str], batches: FakeBatches) -> None:
        self.events, self.batches, self.sums, self.step = events, batches, StepSums(CPU), FakeStep()
        self.losses: dict[int, float] = {}
        self.while_computing: Callable[[int], None] = lambda step: None

    def __call__(self, batch: Batch, number: int) -> StepOutcome:
        assert batch.images.item() == number, "batches come in their order"
        self.while_computing(number)
        self.events.append(f"step {number}")
        loss = torch.tensor(self.losses.get(number, float(number)))
        statistics = StepStatistics(loss, ZERO, ZERO, self.step.gate.judge(loss, ZERO, number))
        self.sums.add(statistics.loss, statistics.refused)
        patches = Patches(torch.zeros(1, 1, 2, dtype=torch.int64))
        return StepOutcome(statistics, Masks(patches, patches))


class FakeBatches:
    """Gives the number of each batch as its image."""

    def __init__(self) -> None:
        self.given = 0
        self.while_reading: Callable[[int], None] = lambda number: None

    def next_images(self) -> Batch:
        self.while_reading(self.given + 1)
        self.given += 1
        return Batch(torch.tensor(self.given), torch.zeros(1, dtype=torch.int64), None)

    def position(self) -> BatchPosition:
        return BatchPosition(0, self.given, ZERO)


class FakeEvaluator:
    """Finds what it is told to find; remembers how often it was asked."""

    def __init__(self, events: list[str]) -> None:
        self.events, self.asked = events, 0
        self.collapsed = False
        self.warning = None
        self.validation_loss = 1.0
        self.while_measuring: Callable[[], None] = lambda: None

    def evaluate(self) -> Evaluation:
        self.asked += 1
        self.while_measuring()
        self.events.append("evaluate")
        return Evaluation({"validation/loss": self.validation_loss}, 0.5, None, self.collapsed)

    def state(self) -> dict[str, Any]:
        return {"asked": self.asked}

    def restore(self, state: dict[str, Any]) -> None:
        self.asked = state["asked"]


class FakeCheckpointer:
    """Notes what is saved: the step, the place in the data order, and whether an evaluation is owed."""

    def __init__(self, events: list[str], evaluator: FakeEvaluator) -> None:
        self.events, self.evaluator = events, evaluator
        self.state = TrainingState()

    def save(self, step: int, position: BatchPosition, *, evaluated: bool = True) -> None:
        self.state.saved_step = step
        owed = "" if evaluated else f", owes the evaluation {self.evaluator.asked + 1}"
        self.events.append(f"save {step} after batch {position.batch}{owed}")

    def last_good(self) -> str:
        return "Last good checkpoint: none"


class FakeMetrics:
    """Keeps the rows."""

    sha256 = ""

    def __init__(self) -> None:
        self.rows: list[tuple[int, Mapping[str, float | None]]] = []

    def append(self, step: int, epoch: float, metrics: Mapping[str, float | None]) -> None:
        self.rows.append((step, metrics))

    def sync(self) -> int:
        return 0


class Loop:
    """A training loop over fakes, and what has happened in it."""

    def __init__(self, stop_file: Path, timetable: Timetable, *, stop_on_collapse: bool = False) -> None:
        self.events: list[str] = []
        self.batches = FakeBatches()
        self.whole_step = FakeWholeStep(self.events, self.batches)
        self.evaluator, self.metrics = FakeEvaluator(self.events), FakeMetrics()
        self.checkpointer = FakeCheckpointer(self.events, self.evaluator)
        self.team = Alone()
        log = TrainingLog(timetable, 1, self.metrics, PlainDisplay(), self.whole_step.sums, PhaseSeconds())
        self.pretraining = Pretraining(
            timetable,
            self.whole_step,  # type: ignore[arg-type]
            self.evaluator,
            self.checkpointer,  # type: ignore[arg-type]
            log,
            self.team,
            stop_file,
            stop_on_collapse,
        )

    def continue_from(self, step: int, *, evaluated: bool) -> None:
        """As if a checkpoint had been restored."""
        self.checkpointer.state.step, self.checkpointer.state.evaluated = step, evaluated
        self.batches.given = step
