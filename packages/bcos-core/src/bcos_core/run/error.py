"""The one exception that means: the user can mend this."""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """A mistake in what the user gave, in one line that says what was expected.

    Commands print it without a traceback and exit with code 2.
    """


def unknown_name(kind: str, name: str, known: Iterable[str]) -> InputError:
    """An error for a name that does not exist, with the nearest one that does.

    Example:
        >>> print(unknown_name("model", "resnet21", ["resnet20", "resnet56"]))
        unknown model "resnet21"; did you mean "resnet20"? Known: resnet20, resnet56
    """
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f'; did you mean "{near[0]}"?' if near else "."
    return InputError(f'unknown {kind} "{name}"{hint} Known: {", ".join(known) or "none"}')
