"""Which executor a sweep uses, and what each trial gets: what the ablation file says, and the command line over it."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from jepa_lab.config.documents import Document, parse_override
from jepa_lab.config.explanations import explain_all
from jepa_lab.config.fields import Component
from jepa_lab.config.pipeline import rebuild_schema
from jepa_lab.config.yaml_text import Path_
from jepa_lab.errors import ConfigError, ConfigProblems
from jepa_lab.registry import ComponentParams
from jepa_lab.sweeps.executors import EXECUTORS
from jepa_lab.sweeps.executors.base import Executor, Surroundings
from jepa_lab.sweeps.folder import SweepFolder
from jepa_lab.sweeps.resources import Needs, Resources

ExecutorField = Annotated[ComponentParams, Component(EXECUTORS)]
LOCAL: ComponentParams = EXECUTORS.get("local").config_type()


class EngineSettings(ComponentParams):
    """The two sections of an ablation file that change no result."""

    executor: ExecutorField = Field(LOCAL)
    resources: Resources = Field(Resources())


NO_ENGINE_SETTINGS = EngineSettings()


@dataclass(frozen=True)
class EngineChoice:
    """What is given beside an ablation; None leaves what its file says.

    Attributes:
        executor: name. options: its parameters, as `key=value`.
        slots, slots_per_gpu: parameters of the local executor.
        cpus, gpus, memory, time: see `Resources`.
    """

    executor: str | None = None
    options: Sequence[str] = ()
    slots: int | None = None
    slots_per_gpu: int | None = None
    cpus: int | None = None
    gpus: float | None = None
    memory: str | None = None
    time: str | None = None

    def resources(self) -> dict[str, Any]:
        """Those that are given."""
        given = {"cpus": self.cpus, "gpus": self.gpus, "memory": self.memory, "time": self.time}
        return {key: value for key, value in given.items() if value is not None}

    def parameters(self) -> dict[Path_, tuple[Any, str]]:
        """Value and place of each parameter of the executor."""
        found: dict[Path_, tuple[Any, str]] = {}
        for text in self.options:
            try:
                path, value = parse_override(text)
            except ConfigError as error:
                raise ConfigError(str(error.problem), place="--executor-option") from None
            found[path] = (value, f"--executor-option {path[0]}")
        for key, value in (("slots", self.slots), ("slots_per_gpu", self.slots_per_gpu)):
            if value is not None:
                found[(key,)] = (value, f"--{key.replace('_', '-')}")
        return found


NO_ENGINE_CHOICE = EngineChoice()


@dataclass(frozen=True)
class Engine:
    """An executor that has been chosen, with what it is to provide."""

    params: ComponentParams
    needs: Needs

    @property
    def name(self) -> str:
        """Of the executor."""
        return EXECUTORS.entry_of(self.params).name

    @property
    def component(self) -> type[Executor]:
        """The executor's class."""
        return EXECUTORS.entry_of(self.params).component

    def planned_slots(self) -> int:
        """How many trials would run at once; ConfigError where what is asked for contradicts itself."""
        return self.component.planned_slots(self.params, self.needs)

    def shares_gpus(self) -> bool:
        """Whether trials that run at once would slow each other down on a GPU."""
        return self.component.shares_gpus(self.params, self.needs)

    def check_machine(self) -> None:
        """Refuse what cannot run here, before anything is written."""
        self.component.check_machine(self.params, self.needs)

    def build(self, folder: SweepFolder, logs: Path | None = None) -> Executor:
        """The executor, at work for a sweep.

        Args:
            logs: folder for what workers of this machine print; None is that of the sweep.
        """
        return self.component(self.params, Surroundings(folder, folder.path if logs is None else logs, self.needs))


@dataclass
class _Draft:
    """The sections as plain data, with the place of each value."""

    document: Document = field(default_factory=lambda: Document({}, origin="command line"))

    def put(self, section: str, values: Mapping[str, Any], place: str) -> None:
        for key, value in values.items():
            self.document.set((section, key), copy.deepcopy(value), place)


def choose_engine(file: EngineSettings, choice: EngineChoice, on_gpu: bool) -> Engine:
    """The executor and the resources of a sweep.

    Args:
        file: what the ablation file says.
        on_gpu: whether the trials may use a GPU.
    Raises:
        ConfigProblems: all that is wrong, with the options that said it.
    """
    rebuild_schema(EngineSettings)  # plug-ins that the pipeline names may bring executors
    in_file = EXECUTORS.entry_of(file.executor).name
    name = in_file if choice.executor is None else choice.executor
    draft = _Draft()
    if name == in_file:
        draft.put("executor", file.executor.model_dump(exclude_unset=True), "the ablation file")
    draft.document.set(("executor", "name"), name, "--executor")
    for path, (value, place) in choice.parameters().items():
        draft.document.set(("executor", *path), value, place)
    draft.put("resources", file.resources.model_dump(exclude_unset=True), "the ablation file")
    for key, value in choice.resources().items():
        draft.document.set(("resources", key), value, f"--{key}")
    try:
        chosen = EngineSettings.model_validate(draft.document.data)
    except ValidationError as error:
        raise ConfigProblems(*explain_all(draft.document, error.errors(include_url=False), EngineSettings)) from None
    engine = Engine(chosen.executor, Needs(chosen.resources, on_gpu))
    engine.planned_slots()  # refuses what cannot be meant
    return engine
