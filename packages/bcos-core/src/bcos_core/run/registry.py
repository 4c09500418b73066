"""Names that a command line knows, and what they stand for."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from .error import unknown_name

T = TypeVar("T")


class Registry(Mapping[str, T]):
    """A mapping filled by decoration; an unknown name is answered with the nearest known one.

    Args:
        kind: What the names stand for, as an error says it ("model", "preset").

    Raises:
        InputError: On looking up an unknown name.
        ValueError: On registering a name twice.

    Example:
        >>> presets = Registry("preset")
        >>> @presets.register("small")
        ... def small(): return 1
        >>> presets["small"]()
        1
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that files what it decorates under ``name``."""
        if name in self._entries:
            raise ValueError(f'{self.kind} "{name}" is registered already')

        def add(entry: T) -> T:
            self._entries[name] = entry
            return entry

        return add

    def __getitem__(self, name: str) -> T:
        try:
            return self._entries[name]
        except KeyError:
            raise unknown_name(self.kind, name, self) from None

    def get(self, name: str, default: Any = None) -> Any:
        """The entry, or ``default`` where there is none: asking so is no mistake."""
        return self._entries.get(name, default)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)
