"""Model files: safetensors with a description, written whole or not at all. Loading one cannot run code."""

import contextlib
import json
import os
import pathlib
import pickle
import zipfile
from collections.abc import Iterator, Mapping, Sequence
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
    state, metadata = _read_safetensors(path)
    description = None
    with contextlib.suppress(json.JSONDecodeError):
        description = json.loads(metadata.get(_DESCRIPTION, ""))
    if not isinstance(description, dict):
        raise InputError(f"{path}: a safetensors file, but without the description that bcos checkpoints carry")
    return state, description


def load_tensors(path: pathlib.Path) -> dict[str, Tensor]:
    """Read a state dict that others have written: safetensors, or what ``torch.save`` made of one.

    Args:
        path: The file. Of a dictionary that holds the state among other things, the entry "state_dict" is taken.

    Raises:
        InputError: If the file is missing, damaged, or holds anything but tensors by name.
    """
    return _read_safetensors(path)[0] if path.suffix == ".safetensors" else _unpickle(path, "cpu")


def read_shapes(path: pathlib.Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors that :func:`load_tensors` would read.

    Raises:
        InputError: If the file is missing, damaged, or holds anything but tensors by name.
    """
    if path.suffix != ".safetensors":
        return {name: tuple(tensor.shape) for name, tensor in _unpickle(path, "meta").items()}
    with _safetensors(path) as file:
        return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 - no mapping


def _unpickle(path: pathlib.Path, device: str) -> dict[str, Tensor]:
    """The state dict that ``torch.save`` wrote."""
    import torch

    try:
        state = torch.load(path, map_location=device, weights_only=True)  # refuses whatever could run code
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except Exception as error:  # a damaged archive, a foreign format, a pickle of more than tensors
        if isinstance(error, pickle.UnpicklingError) and zipfile.is_zipfile(path):
            raise InputError(
                f"{path}: holds more than tensors, a whole model perhaps, which could run code when it is read; "
                "save its state_dict()"
            ) from None
        raise InputError(f"{path}: no readable checkpoint ({type(error).__name__})") from None
    if isinstance(state, Mapping):
        state = state.get("state_dict", state)
    if not isinstance(state, Mapping) or not all(
        isinstance(name, str) and isinstance(tensor, Tensor) for name, tensor in state.items()
    ):
        raise InputError(f"{path}: expected a state dict, tensors by name")
    return dict(state)


def load_state(model: nn.Module, state: Mapping[str, Tensor], source: str) -> None:
    """Copy a state into a model that fits it exactly.

    Args:
        model: Where it goes.
        state: Names and tensors.
        source: Where it comes from, for the message.

    Raises:
        InputError: If names or shapes differ; says which are missing, unexpected or of another shape.
    """
    check_state({name: tensor.shape for name, tensor in model.state_dict().items()}, state, source)
    model.load_state_dict(dict(state))


def check_state(expected: Mapping[str, Sequence[int]], state: Mapping[str, Tensor], source: str) -> None:
    """Refuse a state whose names or shapes are not the expected ones.

    Raises:
        InputError: Says which are missing, unexpected or of another shape.
    """
    differences = {
        "missing": sorted(expected.keys() - state.keys()),
        "unexpected": sorted(state.keys() - expected.keys()),
        "of another shape": [
            f"{name} {tuple(state[name].shape)} instead of {tuple(expected[name])}"
            for name in sorted(expected.keys() & state.keys())
            if tuple(state[name].shape) != tuple(expected[name])
        ],
    }
    if any(differences.values()):
        text = "; ".join(f"{len(names)} {kind}: {_some(names)}" for kind, names in differences.items() if names)
        raise InputError(f"{source}: a checkpoint of another architecture ({text})")


def _read_safetensors(path: pathlib.Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by name, and the file's metadata."""
    with _safetensors(path) as file:
        metadata = file.metadata() or {}
        return {name: file.get_tensor(name) for name in file.keys()}, metadata  # noqa: SIM118 - no mapping


@contextlib.contextmanager
def _safetensors(path: pathlib.Path) -> Iterator[Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (OSError, SafetensorError) as error:
        raise InputError(f"{path}: no readable safetensors checkpoint ({error})") from None


def _some(names: list[str], most: int = 3) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
