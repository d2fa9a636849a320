"""What components keep that a program picks by itself or by a name, where no pipeline gives them parameters."""

from __future__ import annotations

from typing import Any

from jepa_lab.registry import Component, Entry
from jepa_lab.testing.components import ComponentContract


class WithoutSettings(ComponentContract):
    """Tests of a component that is always built with its defaults: nobody can set its parameters."""

    def test_it_is_built_without_any_setting(self, entry: Entry[Any]) -> None:
        built = entry.component(entry.params_type())
        assert isinstance(built, Component)
