"""The field types that connect a pipeline's section to a registry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.fields import FieldInfo
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from jepa_lab.registry import Registry


@dataclass(frozen=True)
class Component:
    """Marks a field as one component of a family: `Annotated[ComponentParams, Component(MASKERS)]`.

    The field accepts `name` alone or a mapping with `name` and that component's parameters. The union is read from
    the registry when the model is built; `rebuild_schema` takes up components registered later.
    """

    registry: Registry[Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        choices = {entry.name: handler.generate_schema(entry.config_type) for entry in self.registry}
        union = core_schema.tagged_union_schema(choices, discriminator="name")
        return core_schema.no_info_before_validator_function(expand_bare_name, union)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        return {"anyOf": [{"enum": self.registry.names()}, handler(schema)]}


@dataclass(frozen=True)
class Components:
    """Marks a field as a list of components of a family: `Annotated[tuple[ComponentParams, ...], Components(PROBES)]`.

    Each item is written as a `Component` is; no name may stand there twice.
    """

    registry: Registry[Any]

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        item = Component(self.registry).__get_pydantic_core_schema__(source, handler)
        return core_schema.no_info_after_validator_function(
            self._refuse_repeated, core_schema.tuple_variable_schema(item)
        )

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        described = handler(schema)
        return {**described, "items": {"anyOf": [{"enum": self.registry.names()}, described["items"]]}}

    def _refuse_repeated(self, items: tuple[Any, ...]) -> tuple[Any, ...]:
        names = [item.name for item in items]
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"{repeated[0]!r} stands here {names.count(repeated[0])} times; keep one of them")
        return items


def expand_bare_name(value: Any) -> Any:
    """`multi_block` -> `{name: multi_block}`."""
    return {"name": value} if isinstance(value, str) else value


def component_of(field: FieldInfo) -> Component | None:
    """The registry that a field is filled from, if it is."""
    return next((mark for mark in field.metadata if isinstance(mark, Component)), None)


def components_of(field: FieldInfo) -> Components | None:
    """The registry that the items of a list are filled from, if they are."""
    return next((mark for mark in field.metadata if isinstance(mark, Components)), None)


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """The model of a field that is a plain section (`data`, `training`), not a component."""
    if component_of(field) or components_of(field):
        return None
    for candidate in (field.annotation, *get_args(field.annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None
