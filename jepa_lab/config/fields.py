"""The field type that connects a pipeline's section to a registry."""

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


def expand_bare_name(value: Any) -> Any:
    """`multi_block` -> `{name: multi_block}`."""
    return {"name": value} if isinstance(value, str) else value


def component_of(field: FieldInfo) -> Component | None:
    """The registry that a field is filled from, if it is."""
    return next((mark for mark in field.metadata if isinstance(mark, Component)), None)


def section_of(field: FieldInfo) -> type[BaseModel] | None:
    """The model of a field that is a plain section (`data`, `training`), not a component."""
    if component_of(field):
        return None
    for candidate in (field.annotation, *get_args(field.annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None
