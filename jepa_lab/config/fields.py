"""The field type that connects a pipeline's section to a registry."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, core_schema

from jepa_lab.registry import Registry


@dataclass(frozen=True)
class Component:
    """Marks a field as one component of a family: `Annotated[ComponentParams, Component(MASKERS)]`.

    The field accepts `name` alone or a mapping with `name` and that component's parameters. The union is read from
    the registry when the model is built; `Pipeline.model_rebuild(force=True)` takes up components registered later.
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
