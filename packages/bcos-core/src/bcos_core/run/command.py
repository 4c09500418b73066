"""What every command line here does alike: dotted options, nearest names, one clear line for a mistake, exit code 2."""

import contextlib
import difflib
import os
import re
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn, TypeVar

from jsonargparse import ArgumentParser, set_parsing_settings

from .error import InputError

T = TypeVar("T")

set_parsing_settings(docstring_parse_attribute_docstrings=True)  # a field's docstring is its help

Command = Callable[[Sequence[str]], None]


class CommandParser(ArgumentParser):
    """A parser whose errors are one line with the nearest valid name."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # `--epoch 5` for --epochs is a mistake to point out, not one to guess about
        super().__init__(*args, **{"allow_abbrev": False, **kwargs})

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        sys.stderr.write(f"{self.prog}: error: {self._one_line(message)}\n")
        raise SystemExit(2)

    def _one_line(self, message: str) -> str:
        if unknown := re.match(r"unrecognized arguments: (.*)", message, re.IGNORECASE):
            options = [a for a in unknown[1].split() if a.startswith("-")]
            if not options:
                return f"unexpected argument {unknown[1]}"
            name = options[0].split("=")[0]
            near = difflib.get_close_matches(name, list(self._option_string_actions), n=1, cutoff=0.5)
            return f"unknown option {name}" + (f"; did you mean {near[0]}?" if near else f"; see {self.prog} --help")
        line = " ".join(message.split())
        line = re.sub(r'^Parser key "([^"]*)": ?', r"--\1: ", line)
        line = re.sub(r"<class '([^']*)'>", r"\1", line)
        if choice := re.search(r"Expected a typing\.Literal\[([^]]*)\]\. Got value: (.*)", line):
            names = [n.strip(" '\"") for n in choice[1].split(",")]
            near = difflib.get_close_matches(choice[2], names, n=1, cutoff=0.5)
            hint = f'; did you mean "{near[0]}"?' if near else ""
            line = line[: choice.start()] + f'expected one of {", ".join(names)}, got "{choice[2]}"{hint}'
        return line.replace("Expected a ", "expected a ").replace(". Got value: ", ", got ")


def parse_config(parser: CommandParser, kind: type[T], argv: Sequence[str]) -> T:
    """Parse the arguments of a parser to which ``kind``'s fields were added.

    Raises:
        SystemExit: With code 2 after one line, on bad input.
    """
    namespace = parser.parse_args(list(argv))
    names = kind.__dataclass_fields__  # type: ignore[attr-defined]
    try:
        values = parser.instantiate(namespace)  # groups of options, which refuse values of their own
        return kind(**{name: values[name] for name in names})
    except ValueError as error:
        parser.error(str(error))


def given_options(argv: Sequence[str]) -> set[str]:
    """Names of the options that stand among arguments, whatever their values.

    Example:
        >>> sorted(given_options(["digits", "--epochs", "3", "--optim.lr=0.1"]))
        ['epochs', 'optim.lr']
    """
    return {word.partition("=")[0].removeprefix("--") for word in argv if word.startswith("--")}


def run_command(
    program: str, commands: Mapping[str, tuple[str, Command]], argv: Sequence[str], version: Callable[[], str]
) -> None:
    """Dispatch ``program COMMAND ...`` and turn mistakes into one line and exit code 2.

    Args:
        program: Name of the program.
        commands: For each command one line of help, and the function that takes its arguments.
        argv: Arguments after the program's name.
        version: Called for ``--version``.
    """
    name, *rest = argv or ["--help"]
    if name in ("-h", "--help"):
        print(f"usage: {program} COMMAND [options]\n\ncommands:")
        for command, (help_line, _) in commands.items():
            print(f"  {command:<10} {help_line}")
        print(f"\n{program} COMMAND --help lists a command's options; {program} --version what is installed.")
        return
    if name == "--version":
        print(version())
        return
    if name not in commands:
        near = difflib.get_close_matches(name, commands, n=1, cutoff=0.5)
        hint = f'did you mean "{near[0]}"?' if near else f"known: {', '.join(commands)}"
        _fail(program, f'unknown command "{name}"; {hint}')
    try:
        with terminable():
            commands[name][1](rest)
            sys.stdout.flush()
    except InputError as error:
        if os.environ.get("BCOS_TRACEBACK"):
            raise
        _fail(f"{program} {name}", str(error))
    except KeyboardInterrupt as interrupt:
        sys.stderr.write(f"\n{program} {name}: interrupted{f'; {interrupt}' if str(interrupt) else ''}\n")
        raise SystemExit(130) from None
    except BrokenPipeError:
        if not _reader_is_gone():
            raise
        raise SystemExit(128 + signal.SIGPIPE) from None


@contextlib.contextmanager
def terminable(error: type[BaseException] = KeyboardInterrupt) -> Iterator[None]:
    """Raise an exception on what ends a job: SIGTERM (of a scheduler, of ``timeout``), a closed terminal.

    As the usual KeyboardInterrupt, so that runs are marked as ended and a line says how to go on. A signal that is
    ignored (nohup) stays ignored; outside the main thread, which alone hears signals, nothing changes.

    Args:
        error: What is raised.
    """

    def stop(*_: object) -> NoReturn:
        raise error

    numbers = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]
    found = {number: signal.getsignal(number) for number in numbers}
    if threading.current_thread() is not threading.main_thread():
        found = {}
    found = {number: handler for number, handler in found.items() if handler not in (signal.SIG_IGN, None)}
    for number in found:
        signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in found.items():
            signal.signal(number, handler)


def _reader_is_gone() -> bool:
    """Whether nobody reads the output any more (``| head``); what is left of it then goes nowhere."""
    if not hasattr(select, "poll"):
        return False
    pipe = select.poll()
    pipe.register(sys.stdout, 0)  # errors are told without being asked for
    if not any(events & (select.POLLERR | select.POLLHUP) for _, events in pipe.poll(0)):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return True


def _fail(program: str, message: str) -> NoReturn:
    sys.stderr.write(f"{program}: error: {' '.join(message.split())}\n")
    raise SystemExit(2)
