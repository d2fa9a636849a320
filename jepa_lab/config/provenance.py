"""Which module and package a run's components came from: written into its folder, read where one is unknown."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from jepa_lab.config.fields import component_of, components_of, section_of
from jepa_lab.contracts import is_own, name_of
from jepa_lab.errors import RunFolderError
from jepa_lab.registry import Registry
from jepa_lab.tracking.run_folder import RunFolder

Origins = dict[str, dict[str, str | None]]
"""`family name` -> module of the component, and the package that brought it (None for a module of no package)."""


def component_origins(pipeline: BaseModel) -> Origins:
    """The components that a pipeline chooses, as JSON values for `environment.json`."""
    found: Origins = {}
    packages: dict[str, list[str]] | None = None
    for registry, name in sorted(_chosen(pipeline), key=lambda each: (each[0].family, each[1])):
        module = registry.get(name).component.__module__
        if is_own(module):
            package: str | None = "jepa-lab"
        else:
            packages = dict(metadata.packages_distributions()) if packages is None else packages
            package = next(iter(packages.get(module.split(".", maxsplit=1)[0], ())), None)
        found[f"{registry.family} {name}"] = {"module": module, "package": _with_version(package)}
    return found


def plugin_components(pipeline: BaseModel) -> list[str]:
    """The components of third parties that a pipeline chooses, for a message."""
    components = {registry.get(name).component for registry, name in _chosen(pipeline)}
    return sorted(name_of(each) for each in components if not is_own(each.__module__))


def _with_version(package: str | None) -> str | None:
    if package is None:
        return None
    try:
        return f"{package} {metadata.version(package)}"
    except metadata.PackageNotFoundError:
        return package


def _chosen(section: BaseModel) -> list[tuple[Registry[Any], str]]:
    found: list[tuple[Registry[Any], str]] = []
    for key, field in type(section).model_fields.items():
        value, one, several = getattr(section, key), component_of(field), components_of(field)
        if one is not None:
            found.append((one.registry, value.name))
        elif several is not None:
            found += [(several.registry, item.name) for item in value]
        elif section_of(field) is not None and isinstance(value, BaseModel):
            found += _chosen(value)
    return found


def recorded_origins(config: Path) -> Origins:
    """What the run folder that holds a configuration says about its components; nothing for any other file."""
    if config.name != "config.yaml":
        return {}
    try:
        recorded = RunFolder(config.parent).read_environment().get("components", {})
    except RunFolderError:  # no run folder, or one that was damaged: only a hint is lost
        return {}
    return recorded if isinstance(recorded, dict) else {}


def missing_origin(origins: Origins, family: str, name: str) -> str | None:
    """Where a component that is unknown here came from, as the end of a sentence; None where nobody knows."""
    origin = origins.get(f"{family} {name}")
    if origin is None:
        return None
    module, package = origin.get("module"), origin.get("package")
    if package is not None:
        return f"; it came from the package {package} (module {module}), which is not installed here: install it"
    return f"; it came from the module {module}: name it under plugins, and its folder in PYTHONPATH"
