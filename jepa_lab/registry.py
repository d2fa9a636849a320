"""Registries: a name in the YAML becomes a class with typed, validated parameters.

A component is one file: a class with a nested `Params` and a registration. Everything that lists
components (the YAML schema, `jepa-lab list`, the contract tests, the documentation) reads the registries, so
nobody edits a list.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any, Generic, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationInfo, create_model, field_validator
from pydantic_core import PydanticCustomError, PydanticKnownError

from jepa_lab.errors import ConfigError, Key, Problem

BROKEN_RULE = "broken_rule"
"""Pydantic's type for the errors of `broken_rule`."""


def broken_rule(*parts: str | Key, keys: Iterable[str | Key] = ()) -> PydanticCustomError:
    """The error of a validator of `Params` about a rule between several parameters: `raise broken_rule(...)`.

    A plain ValueError does for a rule about one parameter.

    Args:
        parts, keys: see `Problem`; parameters by their names.
    """
    problem = Problem(*parts, keys=keys)
    return PydanticCustomError(BROKEN_RULE, "{text}", {"text": problem.text(), "problem": problem})


class ComponentParams(BaseModel):
    """Base of every component's `Params`: frozen, unknown keys forbidden, no infinities or NaN.

    Params hold what a user chooses; what the run knows (grid, widths, classes) goes to the constructor.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, protected_namespaces=())

    @field_validator("*", mode="before")
    @classmethod
    def _refuse_non_numbers(cls, value: Any, info: ValidationInfo) -> Any:
        """`true` where a number belongs is a mistake, which pydantic would read as 1; so is what no machine counts."""
        kinds = _plain_types(cls.model_fields[str(info.field_name)].annotation)
        if bool not in kinds and kinds & {int, float} and _holds_truth_value(value):
            raise PydanticKnownError("float_type" if float in kinds else "int_type")
        if kinds & {int, float} and _holds_huge_integer(value):
            raise PydanticCustomError("huge_integer", "must lie between -2**63 and 2**63")
        return value


def _plain_types(annotation: Any) -> set[type]:
    """The classes that an annotation is made of: `tuple[float, ...] | None` -> {float, NoneType}."""
    parts = get_args(annotation)
    if parts:
        return set().union(*map(_plain_types, parts))
    return {annotation} if isinstance(annotation, type) else set()


def _holds_truth_value(value: Any) -> bool:
    return any(map(_holds_truth_value, value)) if isinstance(value, list | tuple) else isinstance(value, bool)


def _holds_huge_integer(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(map(_holds_huge_integer, value))
    return isinstance(value, int) and not -(2**63) <= value < 2**63


Known = TypeVar("Known")
"""What a run knows when it checks a component of a family, such as the patch grid; None where that is nothing."""


class Component(Generic[Known]):
    """Base of every family's base: what all components have in common."""

    Params: type[ComponentParams] = ComponentParams

    @classmethod
    def check(cls, params: Any, known: Known) -> Problem | str | None:
        """The rule that the parameters break in this run, its values and its remedy; None where they fit.

        Called before anything is built. Parameters are named relative to the component: in the text by
        `Key("num_layers")`, or as `keys` where the text does not name them. A plain sentence is a rule about the
        component as a whole.

        Args:
            params: the component's own `Params`.
            known: what the family's base class says.
        """
        return None


T = TypeVar("T")


@dataclass(frozen=True)
class Entry(Generic[T]):
    """One registered component.

    Attributes:
        config_type: the component's `Params` with its `name` added: what the YAML section is validated against.
    """

    name: str
    component: type[T]
    params_type: type[ComponentParams]
    config_type: type[ComponentParams]
    summary: str
    source: str


class Registry(Generic[T]):
    """Maps names to the components of one family (maskers, losses, ...).

    Args:
        family: singular name of the family, as it appears in `jepa-lab list` and in messages.
        base: the abstract class that every component of the family extends.
    """

    def __init__(self, family: str, base: type[Any]) -> None:
        if family in FAMILIES:
            raise ConfigError(f"registry family {family!r} already exists; choose another name")
        self.family = family
        self.base = base
        self._entries: dict[str, Entry[T]] = {}
        FAMILIES[family] = self

    def register(self, name: str, *, summary: str, source: str) -> Callable[[type[T]], type[T]]:
        """Class decorator that adds a component under `name`.

        Args:
            summary: one line for `jepa-lab list`.
            source: paper and section, or the program whose behaviour this is.
        Raises:
            ConfigError: if the name is taken, or the class lacks `Params` or the family's base.
        """

        def add(component: type[T]) -> type[T]:
            self._check(name, component)
            params_type: type[ComponentParams] = component.Params  # type: ignore[attr-defined]
            config_type = create_model(
                f"{component.__name__}Config",
                __base__=params_type,
                name=(Literal[name], name),  # type: ignore[arg-type]
            )
            self._entries[name] = Entry(name, component, params_type, config_type, summary, source)
            return component

        return add

    def _check(self, name: str, component: type[T]) -> None:
        where = f"{component.__module__}.{component.__qualname__}"
        if name in self._entries:
            holder = self._entries[name].component
            raise ConfigError(
                f"{where} registers {self.family} {name!r}, which {holder.__module__}.{holder.__qualname__} "
                "holds already; register it under another name"
            )
        if not issubclass(component, self.base):
            raise ConfigError(f"{where} must extend {self.base.__name__} to be a {self.family}")
        for method in _promised(self.base):
            _check_signature(where, component, self.base, method)
        params = getattr(component, "Params", None)
        if not (isinstance(params, type) and issubclass(params, ComponentParams)):
            raise ConfigError(f"{where} needs a nested class Params(ComponentParams)")

    def __iter__(self) -> Iterator[Entry[T]]:
        return iter(self._entries[name] for name in sorted(self._entries))

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def names(self) -> list[str]:
        """The registered names, sorted."""
        return sorted(self._entries)

    def get(self, name: str) -> Entry[T]:
        """The component registered under `name`.

        Raises:
            ConfigError: with the nearest names, if there is none.
        """
        if name not in self._entries:
            raise ConfigError(f"unknown {self.family} {name!r}{did_you_mean(name, self.names())}")
        return self._entries[name]

    def entry_of(self, params: ComponentParams) -> Entry[T]:
        """The component that a validated YAML section belongs to."""
        return self.get(params.name)  # type: ignore[attr-defined]


FAMILIES: dict[str, Registry[Any]] = {}


def _promised(base: type[Any]) -> list[str]:
    """The methods of a family: those that its base class, or a class of jepa-lab below it, defines."""
    own = [each for each in base.__mro__ if each.__module__.split(".", maxsplit=1)[0] == __name__.split(".")[0]]
    names = {name for each in own for name, value in vars(each).items() if callable(value) or _is_bound(value)}
    return sorted(name for name in names if name == "__init__" or (name.islower() and not name.startswith("_")))


def _is_bound(value: object) -> bool:
    return isinstance(value, classmethod | staticmethod)


def _check_signature(where: str, component: type[Any], base: type[Any], method: str) -> None:
    """A method that is called with what its base class takes must take as much.

    Raises:
        ConfigError: it cannot be called so.
    """
    theirs, ours = getattr(component, method), getattr(base, method)
    if not callable(theirs) or theirs is ours:
        return
    expected = inspect.signature(ours)
    given = [each for each in expected.parameters.values() if each.default is each.empty]
    by_place = [each.name for each in given if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)]
    by_name = {each.name: None for each in given if each.kind is each.KEYWORD_ONLY}
    try:
        inspect.signature(theirs).bind(*by_place, **by_name)
    except TypeError as error:
        raise ConfigError(
            f"{where}.{method} takes {inspect.signature(theirs)}, and is called as {base.__name__}.{method}, which "
            f"takes {expected} ({error}); give it those parameters"
        ) from None


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """The end of a message about an unknown name: the nearest name, or all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(wrong, names, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known: {', '.join(names)}" if names else ""


def import_submodules(package: ModuleType) -> None:
    """Import every module of a family's package, so that its components register themselves."""
    for module in sorted(pkgutil.iter_modules(package.__path__), key=lambda found: found.name):
        importlib.import_module(f"{package.__name__}.{module.name}")
