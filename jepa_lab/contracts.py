"""What a component returns is checked where it is first used, and an exception in a plug-in is told as the plug-in's.

The checks look at types, shapes, dtypes and devices of the first call alone: they read no value from the device, and
nothing of them is left in a compiled step.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from jepa_lab.errors import JepaLabError, PluginError
from jepa_lab.registry import FAMILIES

_OWN = "jepa_lab"


def is_first(component: object, call: str) -> bool:
    """Whether this is the first time that this is asked about a call of the component; never in a compiled graph."""
    if torch.compiler.is_compiling():
        return False
    seen = component.__dict__.setdefault("_calls_seen", set())
    if call in seen:
        return False
    seen.add(call)
    return True


def name_of(component: object) -> str:
    """A component, or its class, for a message: family, registered name and module."""
    kind = component if isinstance(component, type) else type(component)
    for family, registry in FAMILIES.items():
        for entry in registry:
            if entry.component is kind:
                return f"{family} {entry.name!r} ({kind.__module__}.{kind.__qualname__})"
    return f"{kind.__module__}.{kind.__qualname__}"


def require(component: object, call: str, fits: bool, returned: Any, expected: str) -> None:
    """Refuse what a component returned, unless it fits.

    Args:
        call: the method, with its arguments where they matter.
        expected: what should have come back, in words.
    Raises:
        PluginError: it does not, and the component is a third party's. AssertionError: it is one of ours.
    """
    if fits:
        return
    kind = component if isinstance(component, type) else type(component)
    message = f"{name_of(kind)} returned {described(returned)} from {call}; expected {expected}"
    if is_own(kind.__module__):
        raise AssertionError(message)
    raise PluginError(f"{message}; fix the plug-in {kind.__module__}")


def require_tensor(
    component: object,
    call: str,
    returned: Any,
    shape: tuple[int, ...],
    letters: str,
    *,
    dtypes: Iterable[torch.dtype] | None = None,
    device: torch.device | None = None,
) -> None:
    """Refuse what should be a tensor of this shape.

    Args:
        letters: the shape in the letters of the documentation.
        dtypes: those that are possible; None for any floating-point one.
        device: where it must be; None for anywhere.
    Raises:
        PluginError, AssertionError: as for `require`.
    """
    possible = None if dtypes is None else list(dict.fromkeys(dtypes))
    fits = isinstance(returned, Tensor) and tuple(returned.shape) == shape
    fits = fits and (returned.is_floating_point() if possible is None else returned.dtype in possible)
    fits = fits and (device is None or returned.device == device)
    kind = "floating-point" if possible is None else " or ".join(map(_short, possible))
    where = "" if device is None else f" on {device}"
    require(component, call, fits, returned, f"a tensor {letters} = {list(shape)} {kind}{where}")


def described(value: Any) -> str:
    """A value for a message: what it is, not what it holds."""
    if isinstance(value, Tensor):
        return f"a tensor {list(value.shape)} {_short(value.dtype)} on {value.device}"
    if value is None or isinstance(value, bool | int | float | str):
        text = repr(value)
        return text if len(text) <= 60 else f"{text[:57]}..."
    if isinstance(value, tuple | list) and len(value) <= 4:
        inner = ", ".join(map(described, value))
        return f"a {type(value).__name__} of ({inner})"
    return f"an object of type {type(value).__module__}.{type(value).__qualname__}"


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def is_own(module: str) -> bool:
    """Whether a module is part of jepa-lab."""
    return module.split(".", maxsplit=1)[0] == _OWN


def plugin_failure(error: BaseException) -> PluginError | None:
    """An exception that came out of a plug-in's code as one of the plug-in; None where no plug-in was at work.

    Errors of our own kinds say what they are about already.
    """
    if isinstance(error, JepaLabError) or not isinstance(error, Exception):
        return None
    frame = _deepest_frame_of_plugin(error.__traceback__)
    if frame is None:
        return _lacking_attribute(error)
    code, module = frame.tb_frame.f_code, str(frame.tb_frame.f_globals.get("__name__"))
    what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    holder = frame.tb_frame.f_locals.get(next(iter(code.co_varnames), ""))
    is_component = _is_component(type(holder))
    who = f"{name_of(holder)} in the plug-in {module}" if is_component else f"the plug-in {module}"
    failure = PluginError(
        f"{who} failed in {code.co_name} ({code.co_filename}:{frame.tb_lineno}) with {what}; fix the plug-in, or "
        "choose another component"
    )
    failure.__cause__ = error
    return failure


def _lacking_attribute(error: Exception) -> PluginError | None:
    """Our code asked a plug-in's component for something that its family promises and that it has not."""
    holder = getattr(error, "obj", None) if isinstance(error, AttributeError) else None
    kind = holder if isinstance(holder, type) else type(holder)
    if is_own(kind.__module__) or not _is_component(kind):
        return None
    failure = PluginError(
        f"{name_of(kind)} has no attribute {error.name!r}, which the base class of its family asks for; "  # type: ignore[attr-defined]
        f"fix the plug-in {kind.__module__}"
    )
    failure.__cause__ = error
    return failure


def _deepest_frame_of_plugin(trace: TracebackType | None) -> TracebackType | None:
    modules, found = _plugin_modules(), None
    while trace is not None:
        if str(trace.tb_frame.f_globals.get("__name__")).split(".", maxsplit=1)[0] in modules:
            found = trace
        trace = trace.tb_next
    return found


def _plugin_modules() -> set[str]:
    """Top-level names of the modules that third parties' components are from."""
    found = {entry.component.__module__ for registry in FAMILIES.values() for entry in registry}
    return {module.split(".", maxsplit=1)[0] for module in found if not is_own(module)}


def _is_component(kind: type) -> bool:
    return any(entry.component is kind for registry in FAMILIES.values() for entry in registry)
