"""One clear line for each mistake, and exit code 2."""

import dataclasses
import signal
import subprocess
import sys
from typing import Literal

import pytest
from bcos_core.run.command import CommandParser, parse_config, run_command
from bcos_core.run.error import InputError


@dataclasses.dataclass(frozen=True)
class Optim:
    """How it learns."""

    lr: float = 0.1
    """Learning rate."""

    def __post_init__(self):
        if not self.lr > 0:
            raise ValueError(f"--optim.lr: expected a positive number, got {self.lr}")


@dataclasses.dataclass(frozen=True)
class Config:
    """A run."""

    epochs: int = 3
    """Passes over the data."""
    variant: Literal["bcos", "baseline"] = "bcos"
    """Kind of layers."""
    optim: Optim = dataclasses.field(default_factory=Optim)

    def __post_init__(self):
        if self.epochs < 1:
            raise ValueError(f"--epochs: expected at least 1, got {self.epochs}")


@pytest.fixture
def parser():
    parser = CommandParser(prog="tool train")
    parser.add_argument("preset", nargs="?")
    parser.add_argument("--config", action="config")
    parser.add_class_arguments(Config, as_group=True)
    return parser


def fail(capsys, call, *arguments):
    """Exit code 2, nothing on stdout, one line on stderr: the line."""
    with pytest.raises(SystemExit) as stop:
        call(*arguments)
    out, err = capsys.readouterr()
    assert stop.value.code == 2
    assert out == ""
    assert err.endswith("\n")
    assert err.count("\n") == 1
    return err.rstrip("\n")


class TestParser:
    def test_defaults(self, parser):
        config = parse_config(parser, Config, [])
        assert config == Config()

    def test_dotted_options(self, parser):
        config = parse_config(parser, Config, ["small", "--epochs", "5", "--optim.lr=1e-3", "--variant", "baseline"])
        assert config == Config(5, "baseline", Optim(1e-3))

    def test_config_file(self, parser, tmp_path):
        path = tmp_path / "config.yaml"
        path.write_text("epochs: 9\noptim:\n  lr: 0.5\n")
        config = parse_config(parser, Config, ["--config", str(path), "--epochs", "4"])
        assert config == Config(4, "bcos", Optim(0.5))

    def test_print_config(self, parser, capsys):
        with pytest.raises(SystemExit) as stop:
            parse_config(parser, Config, ["--epochs", "5", "--print_config"])
        assert stop.value.code == 0
        assert "epochs: 5" in capsys.readouterr().out

    def test_help_shows_what_the_fields_docstrings_say(self, parser, capsys):
        with pytest.raises(SystemExit) as stop:
            parser.parse_args(["--help"])
        assert stop.value.code == 0
        out = capsys.readouterr().out
        assert "Passes over the data" in out
        assert "Learning rate" in out

    @pytest.mark.parametrize(
        ("arguments", "line"),
        [
            (["--epoch", "5"], "unknown option --epoch; did you mean --epochs?"),
            (["--epoch=5"], "unknown option --epoch; did you mean --epochs?"),
            (["--optim.rl", "5"], "unknown option --optim.rl; did you mean --optim.lr?"),
            (["--zzzzzzzzz", "5"], "unknown option --zzzzzzzzz; see tool train --help"),
            (["small", "large"], "unexpected argument large"),
            (["--epochs", "0"], "--epochs: expected at least 1, got 0"),
            (["--optim.lr", "-1"], "--optim.lr: expected a positive number, got -1.0"),
        ],
    )
    def test_mistakes(self, parser, capsys, arguments, line):
        assert fail(capsys, parse_config, parser, Config, arguments) == f"tool train: error: {line}"

    @pytest.mark.parametrize(
        ("arguments", "parts"),
        [
            (["--variant", "baselin"], ["--variant", "expected one of bcos, baseline", 'did you mean "baseline"?']),
            (["--variant", "xyz"], ["--variant", "expected one of bcos, baseline", '"xyz"']),
            (["--epochs", "many"], ["--epochs", "int", "many"]),
            (["--optim.lr", "fast"], ["--optim.lr", "float", "fast"]),
            (["--epochs"], ["--epochs", "expected one argument"]),
            (["--config", "none.yaml"], ["none.yaml"]),
        ],
    )
    def test_values(self, parser, capsys, arguments, parts):
        line = fail(capsys, parse_config, parser, Config, arguments)
        assert line.startswith("tool train: error: ")
        for part in parts:
            assert part in line

    def test_config_file_with_an_unknown_option(self, parser, capsys, tmp_path):
        path = tmp_path / "config.yaml"
        path.write_text("epoch: 9\n")
        assert "epoch" in fail(capsys, parse_config, parser, Config, ["--config", str(path)])


class TestRunCommand:
    @pytest.fixture
    def calls(self):
        return []

    @pytest.fixture
    def run(self, calls):
        def raising(error):
            def command(_):
                raise error

            return command

        commands = {
            "train": ("train it", lambda argv: calls.append(list(argv))),
            "explain": ("explain it", raising(InputError("first line\n  second line"))),
            "stop": ("stop it", raising(KeyboardInterrupt())),
            "break": ("break it", raising(ValueError("a bug"))),
        }
        return lambda *argv: run_command("tool", commands, argv, lambda: "tool 1.2.3")

    def test_dispatches(self, run, calls):
        run("train", "--epochs", "3", "--help")
        assert calls == [["--epochs", "3", "--help"]]

    @pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"]])
    def test_help(self, run, calls, capsys, arguments):
        run(*arguments)
        out, err = capsys.readouterr()
        assert out.startswith("usage: tool COMMAND [options]\n")
        assert "  train      train it\n" in out
        assert not err
        assert not calls

    def test_version(self, run, capsys):
        run("--version")
        assert capsys.readouterr().out == "tool 1.2.3\n"

    @pytest.mark.parametrize(
        ("name", "line"),
        [
            ("trian", 'tool: error: unknown command "trian"; did you mean "train"?'),
            ("zzz", 'tool: error: unknown command "zzz"; known: train, explain, stop, break'),
            ("--epochs", 'tool: error: unknown command "--epochs"; known: train, explain, stop, break'),
        ],
    )
    def test_unknown_command(self, run, calls, capsys, name, line):
        assert fail(capsys, run, name) == line
        assert not calls

    def test_input_error_is_one_line(self, run, capsys, monkeypatch):
        monkeypatch.delenv("BCOS_TRACEBACK", raising=False)
        assert fail(capsys, run, "explain") == "tool explain: error: first line second line"

    def test_traceback_on_request(self, run, monkeypatch):
        monkeypatch.setenv("BCOS_TRACEBACK", "1")
        with pytest.raises(InputError, match="first line"):
            run("explain")

    def test_interrupt(self, run, capsys):
        with pytest.raises(SystemExit) as stop:
            run("stop")
        assert stop.value.code == 130
        assert capsys.readouterr().err == "\ntool stop: interrupted\n"

    def test_a_bug_is_not_hidden(self, run):
        with pytest.raises(ValueError, match="a bug"):
            run("break")


def test_a_command_line_needs_no_torch_until_it_works():
    code = (
        "import sys, bcos_core, bcos_core.run.command, bcos_core.run.config, bcos_core.run.registry\n"
        "heavy = {'torch', 'mlflow', 'sklearn', 'lightning'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


SCRIPT = """
import signal, sys, time
from bcos_core.run.command import run_command

for name in ("SIGTERM", "SIGHUP"):
    if hasattr(signal, name):  # whatever the tests run under ignores
        signal.signal(getattr(signal, name), signal.SIG_IGN if "ignoring" in sys.argv else signal.SIG_DFL)

def wait(argv):
    try:
        print("ready", flush=True)
        time.sleep(1 if "ignoring" in argv else 60)
    finally:
        print("ended in order", flush=True)

def talk(argv):
    for number in range(100_000):
        print(number)

run_command("tool", {"wait": ("", wait), "talk": ("", talk)}, sys.argv[1:], str)
"""


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_what_ends_a_job_ends_a_command_in_order(name):
    process = start("wait")
    assert process.stdout.readline() == "ready\n"
    process.send_signal(getattr(signal, name))
    out, err = process.communicate(timeout=60)
    assert (out, err, process.returncode) == ("ended in order\n", "\ntool wait: interrupted\n", 130)


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_what_is_ignored_stays_ignored():  # as under nohup
    process = start("wait", "ignoring")
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGHUP)
    out, err = process.communicate(timeout=60)
    assert (out, err, process.returncode) == ("ended in order\n", "", 0)


@pytest.mark.skipif(sys.platform == "win32", reason="pipes of POSIX")
def test_a_reader_who_goes_away_is_no_error():
    process = start("talk")
    assert process.stdout.readline() == "0\n"
    process.stdout.close()
    err = process.stderr.read()
    process.stderr.close()
    assert (process.wait(60), err) == (141, "")
