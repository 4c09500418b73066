"""Configurations are frozen dataclasses; here they become files, dotted names and fingerprints."""

import dataclasses
import hashlib
import json
import math
import pathlib
import typing
from typing import Any, TypeVar

from .error import InputError, unknown_name

T = TypeVar("T")


def to_dict(config: Any) -> dict[str, Any]:
    """A configuration as nested dictionaries of plain values."""
    return dataclasses.asdict(config)


def from_dict(kind: type[T], values: dict[str, Any]) -> T:
    """Rebuild a configuration from what :func:`to_dict` gave; absent values take their defaults.

    Raises:
        InputError: On a name that ``kind`` does not have, or a value it refuses.
    """
    types = typing.get_type_hints(kind)
    fields: dict[str, Any] = {}
    for name, value in values.items():
        if name not in types:
            raise unknown_name("option", name, types)
        if dataclasses.is_dataclass(types[name]):
            if not isinstance(value, dict):
                raise InputError(f"{name}: expected a group of options, got {value!r}")
            value = from_dict(types[name], value)
        fields[name] = value
    try:
        return kind(**fields)
    except (TypeError, ValueError) as error:
        raise InputError(str(error)) from None


def flatten(config: Any) -> dict[str, Any]:
    """Dotted names and values, as the command line and MLflow have them.

    Example:
        >>> @dataclasses.dataclass(frozen=True)
        ... class Optim: lr: float = 0.1
        >>> @dataclasses.dataclass(frozen=True)
        ... class Config: optim: Optim = Optim()
        >>> flatten(Config())
        {'optim.lr': 0.1}
    """
    return flatten_values(to_dict(config))


def flatten_values(values: dict[str, Any]) -> dict[str, Any]:
    """Nested values by dotted names.

    Example:
        >>> flatten_values({"b": 2.0, "optim": {"lr": 0.1}})
        {'b': 2.0, 'optim.lr': 0.1}
    """
    flat: dict[str, Any] = {}

    def visit(prefix: str, node: dict[str, Any]) -> None:
        for name, value in node.items():
            if isinstance(value, dict):
                visit(f"{prefix}{name}.", value)
            else:
                flat[prefix + name] = value

    visit("", values)
    return flat


def field_types(kind: type) -> dict[str, Any]:
    """Type of every option of a configuration, by dotted name.

    Example:
        >>> @dataclasses.dataclass(frozen=True)
        ... class Optim: lr: float = 0.1
        >>> @dataclasses.dataclass(frozen=True)
        ... class Config: optim: Optim = Optim()
        >>> field_types(Config)
        {'optim.lr': <class 'float'>}
    """
    found: dict[str, Any] = {}
    for name, of in typing.get_type_hints(kind).items():
        if dataclasses.is_dataclass(of) and isinstance(of, type):
            found |= {f"{name}.{inner}": inner_type for inner, inner_type in field_types(of).items()}
        else:
            found[name] = of
    return found


def save_config(config: Any, path: pathlib.Path) -> None:
    """Write a configuration as JSON (which is YAML too: ``--config`` reads it back)."""
    save_values(to_dict(config), path)


def save_values(values: dict[str, Any], path: pathlib.Path) -> None:
    """Write plain values as indented JSON; numbers that JSON does not have as "inf", "-inf" and "nan"."""
    path.write_text(json.dumps(_in_json(values), indent=2, allow_nan=False) + "\n")


def _in_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _in_json(v) for key, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_in_json(v) for v in value]
    return str(float(value)) if isinstance(value, float) and not math.isfinite(value) else value


def load_dict(path: pathlib.Path) -> dict[str, Any]:
    """Read what :func:`save_config` wrote.

    Raises:
        InputError: If the file is missing or is no JSON object.
    """
    try:
        values = json.loads(path.read_text())
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"{path}: no readable configuration ({error})") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected a JSON object, got {type(values).__name__}")
    return values


def fingerprint(*parts: bytes | str) -> str:
    """Sixteen hexadecimal digits that stand for these parts in this order.

    Example:
        >>> fingerprint("a", "b") != fingerprint("ab")
        True
    """
    digest = hashlib.sha256()
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        digest.update(len(raw).to_bytes(8, "little"))
        digest.update(raw)
    return digest.hexdigest()[:16]
