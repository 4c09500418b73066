"""Model files: safetensors with a description, written whole or not at all. Loading one cannot run code."""

import contextlib
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from .error import InputError

_DESCRIPTION = "bcos"


def save_model(path: pathlib.Path, model: nn.Module, description: Mapping[str, Any]) -> None:
    """Write a model's state and the description that rebuilds it.

    The file appears under its name only when it is complete: a full disk or a kill leaves the previous one.

    Args:
        path: File to write (``.safetensors``).
        model: Its ``state_dict`` is saved.
        description: Plain values (JSON) that say how to build the model.

    Raises:
        InputError: If the file cannot be written; the previous one, if any, is whole.
    """
    from safetensors.torch import save

    # cloned: safetensors refuses tensors that share memory, as those of a module used twice do
    state = {name: value.detach().cpu().contiguous().clone() for name, value in model.state_dict().items()}
    write_atomically(path, save(state, metadata={_DESCRIPTION: json.dumps(dict(description))}))


def write_atomically(path: pathlib.Path, data: bytes | memoryview) -> None:
    """Write a file under a temporary name beside it, then rename it over the old one.

    Raises:
        InputError: If it cannot be written; the old file is untouched and the temporary one removed.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        kept = " The previous file is whole." if path.exists() else ""
        raise InputError(f"{path}: cannot write {len(data) / 2**20:.1f} MiB ({error.strerror}).{kept}") from None


def load_model(path: pathlib.Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a model file: its state and its description.

    Raises:
        InputError: If the file is missing, truncated, or not one of ours.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: no readable safetensors checkpoint ({error})") from None
    description = None
    with contextlib.suppress(json.JSONDecodeError):
        description = json.loads(metadata.get(_DESCRIPTION, ""))
    if not isinstance(description, dict):
        raise InputError(f"{path}: a safetensors file, but without the description that bcos checkpoints carry")
    return state, description


def load_state(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Copy a state into a model that fits it exactly.

    Args:
        model: Where it goes.
        state: Names and tensors.
        source: Where it comes from, for the message.

    Raises:
        InputError: If names or shapes differ; says which are missing, unexpected or of another shape.
    """
    own = model.state_dict()
    differences = {
        "missing": sorted(own.keys() - state.keys()),
        "unexpected": sorted(state.keys() - own.keys()),
        "of another shape": [
            f"{name} {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
            for name in sorted(own.keys() & state.keys())
            if state[name].shape != own[name].shape
        ],
    }
    if any(differences.values()):
        text = "; ".join(f"{len(names)} {kind}: {_some(names)}" for kind, names in differences.items() if names)
        raise InputError(f"{source}: a checkpoint of another architecture ({text})")
    model.load_state_dict(dict(state))


def _some(names: list[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
