"""Where a command leaves what it made."""

import pathlib
import tempfile

from .error import InputError


def writable_folder(folder: pathlib.Path) -> pathlib.Path:
    """Make a folder for results, before anything is computed.

    Raises:
        InputError: If nothing can be written there; says why.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return folder
    except OSError as error:
        raise InputError(f"{folder}: cannot write there ({error.strerror})") from None


def short(path: pathlib.Path) -> pathlib.Path:
    """A path as a person would type it here."""
    here = pathlib.Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
