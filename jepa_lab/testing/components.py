"""What every component of every family keeps."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pytest
from pydantic import ValidationError

from jepa_lab.errors import Key, Problem
from jepa_lab.registry import FAMILIES, Component, ComponentParams, Entry

_LARGE = 1_000_000


class ComponentContract:
    """Tests of a registered component.

    Attributes:
        component: the class under test, which `register` has been applied to.
        settings: parameters to test it with, by name: those that have no default, and those that save time.
        fitting: what a usual run knows when it calls `check`, where the parameters fit.
        breaking: what other runs know; the parameters may fit there, or be refused.
    """

    component: ClassVar[type[Any]]
    settings: ClassVar[Mapping[str, Any]] = {}
    fitting: ClassVar[Any] = None
    breaking: ClassVar[Sequence[Any]] = ()

    @pytest.fixture
    def entry(self) -> Entry[Any]:
        """The component as it is registered."""
        found = [entry for registry in FAMILIES.values() for entry in registry if entry.component is self.component]
        assert found, f"{self.component.__name__} is not registered; decorate it with REGISTRY.register(name, ...)"
        return found[0]

    @pytest.fixture
    def params(self, entry: Entry[Any]) -> ComponentParams:
        """The parameters that the component is tested with."""
        return entry.config_type(**self.settings)

    def known_to_runs(self, entry: Entry[Any]) -> list[Any]:
        """What runs know when they call `check`, the fitting one first."""
        return [self.fitting, *self.breaking]

    def test_it_is_described_and_cited(self, entry: Entry[Any]) -> None:
        assert entry.summary
        assert "\n" not in entry.summary
        assert entry.source
        assert entry.component.__doc__
        for name, field in entry.params_type.model_fields.items():
            assert field.description, f"{entry.name}.{name} has no description"

    def test_its_parameters_are_frozen_closed_and_finite(self, entry: Entry[Any], params: ComponentParams) -> None:
        given = params.model_dump()
        with pytest.raises(ValidationError):
            entry.config_type.model_validate({**given, "no_such_key": 1})
        for name, field in entry.params_type.model_fields.items():
            with pytest.raises(ValidationError):
                setattr(params, name, getattr(params, name))
            if field.annotation is float:
                for value in (float("nan"), float("inf")):
                    with pytest.raises(ValidationError):
                        entry.config_type.model_validate({**given, name: value})

    def test_its_parameters_survive_yaml(self, entry: Entry[Any], params: ComponentParams) -> None:
        assert entry.config_type.model_validate(params.model_dump(mode="json")) == params
        assert entry.config_type.model_validate_json(params.model_dump_json()) == params

    def test_it_is_checked_as_all_components_are(self, entry: Entry[Any]) -> None:
        assert issubclass(entry.component, Component)
        assert list(inspect.signature(entry.component.check).parameters) == ["params", "known"]

    def test_its_parameters_fit_a_usual_run(self, entry: Entry[Any], params: ComponentParams) -> None:
        assert entry.component.check(params, self.known_to_runs(entry)[0]) is None

    def test_a_rule_names_its_own_parameters_and_ends_with_a_remedy(
        self, entry: Entry[Any], params: ComponentParams
    ) -> None:
        for known in self.known_to_runs(entry):
            for given in [params, *large_numbers(entry, params)]:
                found = entry.component.check(given, known)
                if found is None:
                    continue
                assert isinstance(found, Problem), f"{entry.name} does not say what it is about"
                assert {key.name for key in found.keys} <= set(entry.params_type.model_fields)
                assert all(key.section is None for key in found.keys)
                assert ";" in found.text(), "a remedy follows the rule, after a semicolon"
                first = found.parts[0]
                begins = f"a.b.{first.name}" if isinstance(first, Key) else "a.b: "
                assert found.of("a.b").startswith(begins)


def large_numbers(entry: Entry[Any], params: ComponentParams) -> list[ComponentParams]:
    """The parameters with one integer after another at 1,000,000, where its bounds allow that."""
    found = []
    for name, value in params.model_dump().items():
        if isinstance(value, int) or (name != "name" and "int" in str(entry.params_type.model_fields[name].annotation)):
            try:
                found.append(entry.config_type.model_validate({**params.model_dump(), name: _LARGE}))
            except ValidationError:
                continue
    return found
