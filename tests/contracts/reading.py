"""Which parameters of a component or a section the program reads: a scan of its source.

A field counts as read where an attribute of its name is taken from something that is known to hold the parameters:
an argument or a variable of their type, `params` in a component, the section's name in the pipeline, or another
name for one of these. Validators do not count; a method of the parameters counts where it is itself read.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

import jepa_lab

PACKAGE = Path(jepa_lab.__file__).parent
_VALIDATORS = {"model_validator", "field_validator"}


@dataclass(frozen=True)
class Statement:
    """What a statement at the top of a module says, a class or a function for the most part.

    Attributes:
        name: of the class or function.
        types: every name in it.
        declared: variables and the names in their annotations.
        bindings: variables and the last names of what they become another name of.
        taken: last names of objects and the attributes that are read from them.
        methods: of a class, each with the attributes that it reads from `self`; without validators.
    """

    name: str | None
    types: frozenset[str]
    declared: list[tuple[str, set[str]]]
    bindings: list[tuple[str, str]]
    taken: list[tuple[str, str]]
    methods: dict[str, set[str]]


Sources = dict[str, list[Statement]]


def read_package() -> Sources:
    """Every module of the package by its dotted name."""
    return {
        ".".join(("jepa_lab", *file.relative_to(PACKAGE).with_suffix("").parts)): read_module(file.read_text())
        for file in PACKAGE.rglob("*.py")
    }


def read_module(text: str) -> list[Statement]:
    """The statements of a module."""
    return [_read_statement(statement) for statement in ast.parse(text).body]


def _read_statement(statement: ast.stmt) -> Statement:
    nodes = list(ast.walk(statement))
    body = statement.body if isinstance(statement, ast.ClassDef) else []
    methods = [node for node in body if isinstance(node, ast.FunctionDef) and not _validates(node)]
    return Statement(
        name=getattr(statement, "name", None),
        types=frozenset(_names(statement)),
        declared=[found for node in nodes for found in _declared(node)],
        bindings=[found for node in nodes for found in _bindings(node)],
        taken=_taken(nodes),
        methods={
            method.name: {attribute for holder, attribute in _taken(list(ast.walk(method))) if holder == "self"}
            for method in methods
        },
    )


def _names(node: ast.AST) -> set[str]:
    return {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}


def _last_name(node: ast.expr | None) -> str | None:
    """`settings` of `settings`, `optimizer` of `pipeline.optimizer`."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else None


def _declared(node: ast.AST) -> Iterator[tuple[str, set[str]]]:
    if isinstance(node, ast.arg) and node.annotation is not None:
        yield node.arg, _names(node.annotation)
    if isinstance(node, ast.AnnAssign) and (name := _last_name(node.target)):
        yield name, _names(node.annotation)


def _bindings(node: ast.AST) -> Iterator[tuple[str, str]]:
    for target in node.targets if isinstance(node, ast.Assign) else ():
        pairs = [(target, node.value)]
        if isinstance(target, ast.Tuple) and isinstance(node.value, ast.Tuple):
            pairs = list(zip(target.elts, node.value.elts, strict=False))
        for left, right in pairs:
            if (name := _last_name(left)) and (value := _last_name(right)):
                yield name, value


def _taken(nodes: list[ast.AST]) -> list[tuple[str, str]]:
    return [
        (holder, node.attr)
        for node in nodes
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load) and (holder := _last_name(node.value))
    ]


def _validates(method: ast.FunctionDef) -> bool:
    decorators = [node.func if isinstance(node, ast.Call) else node for node in method.decorator_list]
    return any(_last_name(decorator) in _VALIDATORS for decorator in decorators)


@dataclass(frozen=True)
class Holding:
    """Parameters, and how the program gets at them.

    Attributes:
        params: their class.
        component: the class that is constructed with them; its `self.params` holds them.
        sections: names of the fields that hold them in the sections above.
    """

    params: type[BaseModel]
    component: type | None = None
    sections: frozenset[str] = frozenset()

    def unread(self, sources: Sources) -> set[str]:
        """The fields that nothing reads."""
        lineage = [kind for kind in self.params.__mro__ if issubclass(kind, BaseModel) and kind.model_fields]
        own, types = {(kind.__module__, kind.__name__) for kind in lineage}, {kind.__name__ for kind in lineage}
        homes = {kind.__module__ for kind in self.component.__mro__} if self.component else set()
        methods: dict[str, set[str]] = {}
        taken: set[str] = set()
        for module, statements in sources.items():
            others = [each for each in statements if (module, each.name) not in own]
            for each in statements:
                methods |= each.methods if (module, each.name) in own else {}
            if module in homes or any(self._concerns(each, types) for each in others):
                taken |= self._taken(others, types, at_home=module in homes)
        while more := set().union(*(methods[name] for name in taken & set(methods))) - taken:
            taken |= more
        return set(self.params.model_fields) - taken

    def _concerns(self, statement: Statement, types: set[str]) -> bool:
        """Whether it takes this type, or a whole pipeline with this section."""
        names = statement.types | {attribute for _, attribute in statement.taken}
        return bool(types & names or (self.sections and {"pipeline", "Pipeline"} & names))

    def _taken(self, statements: list[Statement], types: set[str], at_home: bool) -> set[str]:
        """Attributes that a module takes from what holds the parameters."""
        holders = set(self.sections) | ({"params"} if at_home else set())
        holders |= {name for each in statements for name, names in each.declared if names & types}
        bindings = [binding for each in statements for binding in each.bindings]
        while more := {name for name, value in bindings if value in holders} - holders:
            holders |= more
        return {attribute for each in statements for holder, attribute in each.taken if holder in holders}
