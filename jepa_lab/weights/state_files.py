"""Tensors of files that others wrote; nothing in a file is executed."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from jepa_lab.errors import ConfigError

TENSOR_FILES = (".safetensors", ".pth", ".pt", ".tar", ".bin", ".ckpt")


def read_tensor_file(file: Path) -> Mapping[str, Any]:
    """What a file of tensors holds: names of tensors, or, in a checkpoint, of dictionaries of them.

    Raises:
        ConfigError: there is no such file, or it is damaged, or holds objects that would have to be executed.
    """
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        content = torch.load(file, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ConfigError(f"{file}: no such file; give a file of weights") from None
    except pickle.UnpicklingError as error:
        raise ConfigError(
            f"{file} is not a file of plain tensors ({str(error).splitlines()[0]}), and nothing else is loaded, as it "
            "could execute code; save its state_dict alone, best as safetensors"
        ) from error
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise ConfigError(f"{file} cannot be read ({str(error).splitlines()[0]}); restore it from a copy") from error
    if not isinstance(content, Mapping):
        raise ConfigError(f"{file} holds {type(content).__name__}, not tensors by name; save its state_dict")
    return content


def tensors_of(content: Mapping[str, Any], part: str, file: Path) -> dict[str, Tensor]:
    """The tensors of a file, or of its dictionary `part`, without the prefix that parallel training adds.

    Raises:
        ConfigError: there are others.
    """
    inner = content.get(part, content)
    if not isinstance(inner, Mapping) or not all(isinstance(value, Tensor) for value in inner.values()) or not inner:
        held = ", ".join(sorted(map(str, content))[:8])
        raise ConfigError(f"{file} has no weights under {part!r}; it holds {held}")
    return {str(name).removeprefix("module."): value for name, value in inner.items()}
