"""What a conversion did, module by module."""

from collections import Counter
from dataclasses import dataclass
from typing import Literal

Action = Literal["replaced", "kept", "refused"]


@dataclass(frozen=True)
class Converted:
    """What became of one module, one parameter, or one call in a module's forward."""

    path: str
    """In the model, "" for the model itself."""
    kind: str
    """Of the module, as it was."""
    action: Action
    into: str
    """What it is now, if replaced."""
    reason: str


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion replaced, kept and refused, and why; ``str`` of it is a table.

    Example:
        >>> print(ConversionReport((Converted("conv1", "Conv2d", "replaced", "BcosConv2d", "no bias"),)))
        path   kind    action    into        reason
        conv1  Conv2d  replaced  BcosConv2d  no bias
        1 replaced, 0 kept, 0 refused
    """

    entries: tuple[Converted, ...]
    notes: tuple[str, ...] = ()
    """What to know of the network as a whole."""

    @property
    def counts(self) -> dict[Action, int]:
        """How many were replaced, kept and refused."""
        found = Counter(entry.action for entry in self.entries)
        return {action: found[action] for action in ("replaced", "kept", "refused")}

    def of(self, action: Action) -> tuple[Converted, ...]:
        """The entries of one action."""
        return tuple(entry for entry in self.entries if entry.action == action)

    def __str__(self) -> str:
        """One line for each that is alike but for its path, in the order of the first, a line of counts, and notes."""
        groups: dict[tuple[str, ...], list[str]] = {}
        for e in self.entries:
            groups.setdefault((e.kind, e.action, e.into, e.reason), []).append(e.path or "(model)")
        header = ("path", "kind", "action", "into", "reason")
        rows = [header, *((_paths(paths), *group) for group, paths in groups.items())]
        widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        counts = ", ".join(f"{n} {action}" for action, n in self.counts.items())
        return "\n".join([*lines, counts, *(f"note: {note}" for note in self.notes)])


def _paths(paths: list[str]) -> str:
    return paths[0] if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
