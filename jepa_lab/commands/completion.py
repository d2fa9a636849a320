"""Completion in bash, zsh and fish: files, runs, sweeps, and keys and values of overrides; torch is not imported."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click
from click.shell_completion import BashComplete, CompletionItem, ZshComplete, add_completion_class

KEYS_FILE = Path(__file__).with_name("keys.json")
"""Written by `jepa-lab schema --keys` from the schema, whose import would take seconds at every press of a key."""


@dataclass(frozen=True)
class KnownKey:
    """A key of a pipeline.

    Attributes:
        choices: its values, where these can be listed: names of components, words, true and false.
        components: those that have it; empty where it is no parameter of a component.
    """

    choices: tuple[str, ...]
    components: tuple[str, ...]


@functools.cache
def known_keys() -> Mapping[str, KnownKey]:
    """Every dotted key of a pipeline that can be given a value."""
    content = json.loads(KEYS_FILE.read_text(encoding="utf-8"))
    return {key: KnownKey(tuple(each["choices"]), tuple(each["components"])) for key, each in content.items()}


def complete_override(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """`KEY=VALUE`, one level of the key after another."""
    given = [*map(str, context.params.get(parameter.name or "") or ()), str(context.params.get("first") or "")]
    key, equals, value = incomplete.partition("=")
    if equals:
        choices = known_keys()[key].choices if key in known_keys() else ()
        return _items(f"{key}={choice}" for choice in choices if choice.startswith(value))
    return _items(_next_level(incomplete, _chosen(given)))


def complete_pipeline(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """A pipeline that comes with jepa-lab, or a file; with --resume or --from an override."""
    if context.params.get("resume") or context.params.get("parent"):
        return complete_override(context, parameter, incomplete)
    return _complete_file(("pipeline",), incomplete)


def complete_sweep(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """An ablation or a pipeline that comes with jepa-lab, or a file."""
    return _complete_file(("ablation", "pipeline"), incomplete)


def complete_source(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """A run by its name, or a file or folder that holds an encoder."""
    return _names_of_folders(context, incomplete) or [CompletionItem(incomplete, "file")]


def complete_probed(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """A run, or with --encoder a pipeline."""
    complete = complete_pipeline if context.params.get("encoder") else complete_folder
    return complete(context, parameter, incomplete)


def complete_folder(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """A run or a sweep by its name, or a folder."""
    # bash would forget the names for the folders
    return _names_of_folders(context, incomplete) or [CompletionItem(incomplete, "dir")]


def _names_of_folders(context: click.Context, incomplete: str) -> list[CompletionItem]:
    roots = [context.params[name] for name in ("runs", "sweeps") if context.params.get(name) is not None]
    found = [path.name for root in map(Path, roots) if root.is_dir() for path in root.iterdir() if _is_named(path)]
    return _items(sorted(name for name in found if name.startswith(incomplete)))


def _is_named(path: Path) -> bool:
    return (path / "config.yaml").is_file() and not path.name.startswith(".")


def _complete_file(kinds: Sequence[Literal["pipeline", "ablation"]], incomplete: str) -> list[CompletionItem]:
    from jepa_lab.config.shipped import shipped_files

    names = _items(name for kind in kinds for name in shipped_files(kind) if name.startswith(incomplete))
    return names or [CompletionItem(incomplete, "file")]


def _items(values: Iterable[str]) -> list[CompletionItem]:
    return [CompletionItem(value) for value in values]


def _chosen(given: Sequence[str]) -> dict[str, str]:
    """The component of each family that earlier overrides choose: `masker=random`."""
    pairs = [override.partition("=") for override in given]
    return {key.removesuffix(".name"): value for key, equals, value in pairs if equals}


def _next_level(incomplete: str, chosen: Mapping[str, str]) -> list[str]:
    """How the key may continue: `masker=`, and `masker.` for its parts."""
    head = incomplete.rpartition(".")[0]
    found: dict[str, None] = {}
    for key, known in known_keys().items():
        component = chosen.get(key.rpartition(".")[0])
        if not key.startswith(incomplete) or (known.components and component not in (None, *known.components)):
            continue
        rest = key[len(head) + 1 :] if head else key
        part, dot, _ = rest.partition(".")
        found[f"{head}.{part}{dot or '='}" if head else f"{part}{dot or '='}"] = None
    return list(found)


class _Bash(BashComplete):
    """Bash splits words at `=`: they are joined again, and only the last part is given back.

    No blank follows a key, which is to be followed by its value.
    """

    source_template = BashComplete.source_template.replace(
        "COMPREPLY+=($value)", "COMPREPLY+=($value)\n            [[ $value == *[=.] ]] && compopt -o nospace"
    )
    _dropped = ""

    def get_completion_args(self) -> tuple[list[str], str]:
        words, incomplete = super().get_completion_args()
        if incomplete == "=" and words:
            words, incomplete = words[:-1], f"{words[-1]}="
        elif len(words) > 1 and words[-1] == "=":
            words, incomplete = words[:-2], f"{words[-2]}={incomplete}"
        self._dropped = f"{incomplete.partition('=')[0]}=" if "=" in incomplete else ""
        return _joined(words), incomplete

    def format_completion(self, item: CompletionItem) -> str:
        return f"{item.type},{str(item.value).removeprefix(self._dropped)}"


def _joined(words: Sequence[str]) -> list[str]:
    """`masker`, `=`, `random` as one word."""
    found: list[str] = []
    for place, word in enumerate(words):
        goes_on = word == "=" or (place > 0 and words[place - 1] == "=")
        if goes_on and found:
            found[-1] += word
        else:
            found.append(word)
    return found


class _Zsh(ZshComplete):
    """No blank follows a key, which is to be followed by its value."""

    source_template = ZshComplete.source_template.replace(
        'completions+=("$key")',
        'if [[ "$key" == *[=.] ]]; then compadd -U -S "" -V unsorted -- "$key"; else completions+=("$key"); fi',
    )


add_completion_class(_Bash)
add_completion_class(_Zsh)  # fish leaves out the blank by itself
