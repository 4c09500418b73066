"""What a conversion did, module by module."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Converted:
    """What became of one module, one parameter, or one call in a module's forward."""

    path: str
    """In the model, "" for the model itself."""
    kind: str
    """Of the module, as it was."""
    action: Literal["replaced", "kept", "refused"]
    into: str
    """What it is now, if replaced."""
    reason: str


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion replaced, kept and refused, and why; ``str`` of it is a table."""

    entries: tuple[Converted, ...]
