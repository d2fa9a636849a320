"""Every arm's pipeline, checked before anything starts; all problems are told at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from jepa_lab.config.loading import LoadedPipeline, config_digest
from jepa_lab.config.yaml_text import shorten
from jepa_lab.errors import ConfigError, DeviceError
from jepa_lab.sweeps.base import Base
from jepa_lab.sweeps.expansion import Draft
from jepa_lab.sweeps.labels import arm_name
from jepa_lab.sweeps.search import Search

_NAMED = 3


@dataclass
class _Findings:
    """Problems of arms: the same one is told once, with the arms that have it."""

    noun: str
    tried: list[str] = field(default_factory=list)
    arms_of: dict[str, list[str]] = field(default_factory=dict)

    def attempt(self, name: str, build: Callable[[], LoadedPipeline]) -> LoadedPipeline | None:
        """What `build` returns, or None after its problems have been noted."""
        self.tried.append(name)
        try:
            return build()
        except (ConfigError, DeviceError) as error:
            for line in error.lines:
                self.arms_of.setdefault(line, []).append(name)
            return None

    def lines(self) -> list[str]:
        return [
            line if names == self.tried else f"{line} [{self._names(names)}]" for line, names in self.arms_of.items()
        ]

    def _names(self, names: list[str]) -> str:
        shown = ", ".join(repr(shorten(name)) for name in names[:_NAMED])
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        return f"{self.noun if len(names) == 1 else self.noun + 's'} {shown}{more}"


def validate_arms(drafts: Iterable[Draft], base: Base) -> tuple[dict[str, LoadedPipeline], list[str]]:
    """The pipelines by the names of their arms, and the problems of those that are left out."""
    findings, pipelines = _Findings("arm"), {}
    same: dict[str, str] = {}
    twins = []
    for draft in drafts:
        loaded = findings.attempt(draft.name, lambda draft=draft: base.changed(draft.changes))  # type: ignore[misc]
        if loaded is None:
            continue
        digest = config_digest(loaded.pipeline)
        if same.get(digest, draft.name) != draft.name:  # a value that is listed twice has been told
            twins.append(
                f"{draft.place}: arm {draft.name!r} has the same configuration as arm {same[digest]!r}; "
                "change or remove one of them"
            )
        same.setdefault(digest, draft.name)
        pipelines[draft.name] = loaded
    return pipelines, findings.lines() + twins


def search_problems(search: Search) -> list[str]:
    """Problems of the extreme values of each key, each alone beside the baseline.

    Points that combine values may still be impossible: those trials fail one by one.
    """
    findings = _Findings("value")
    for _, point, changes in search.variations():
        findings.attempt(arm_name(point.items()), lambda changes=changes: search.base.changed(changes))  # type: ignore[misc]
    return findings.lines()
