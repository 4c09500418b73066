"""Model files: whole or not at all, and clear words about files that are not ours."""

import errno
import json
import os
import re
import subprocess
import sys

import pytest
import torch
from bcos_core.nn import BatchNormUncentered2d, BcosConv2d
from bcos_core.run.checkpoint import load_model, load_state, save_model, write_atomically
from bcos_core.run.error import InputError
from safetensors.torch import save_file
from torch import nn

DESCRIPTION = {"model": "tiny", "b": 2.0, "classes": ["a", "ü"], "norm": None}


def build(channels=4):
    return nn.Sequential(BcosConv2d(2, channels, 3), BatchNormUncentered2d(channels))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def test_round_trip(path):
    model = build().double()
    model(torch.randn(2, 2, 5, 5, dtype=torch.float64))  # running statistics, an integer among them
    save_model(path, model, DESCRIPTION)
    state, description = load_model(path)
    assert description == DESCRIPTION
    assert state.keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert state[name].dtype == value.dtype
        assert torch.equal(state[name], value)
    other = build().double()
    load_state(other, state, "here")
    x = torch.randn(2, 2, 5, 5, dtype=torch.float64)
    assert torch.equal(other.eval()(x), model.eval()(x))
    assert os.listdir(path.parent) == [path.name]


def test_layouts_and_shared_tensors(path):
    """channels_last filters, a transposed parameter, and one module under two names."""
    shared = nn.Linear(3, 3)
    model = nn.ModuleList([nn.Conv2d(4, 4, 3).to(memory_format=torch.channels_last), shared, shared])
    model.register_parameter("turned", nn.Parameter(torch.randn(2, 5).T))
    save_model(path, model, {})
    state, _ = load_model(path)
    for name, value in model.state_dict().items():
        assert torch.equal(state[name], value)
    with torch.no_grad():
        shared.weight.zero_()
    load_state(model, state, "here")
    assert torch.equal(shared.weight, state["1.weight"])


def test_overwrites(path):
    first, second = build(), build()
    save_model(path, first, {"n": 1})
    save_model(path, second, {"n": 2})
    state, description = load_model(path)
    assert description == {"n": 2}
    assert torch.equal(state["0.weight"], second[0].weight)


def test_is_safetensors_with_a_description_in_its_header(path):
    save_model(path, build(), DESCRIPTION)
    raw = path.read_bytes()
    header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
    assert json.loads(header["__metadata__"]["bcos"]) == DESCRIPTION


# ---- files that cannot be read ----


@pytest.mark.parametrize("kept", [0, 4, 30, 200, -1])
def test_truncated(path, kept):
    save_model(path, build(), DESCRIPTION)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(InputError, match="no readable safetensors checkpoint") as error:
        load_model(path)
    assert str(path) in str(error.value)


def test_missing_and_folder(path):
    for wrong in (path, path.parent):
        with pytest.raises(InputError, match="no readable safetensors checkpoint"):
            load_model(wrong)


def test_a_pickle_is_not_opened(path, tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "exploded"),)

    torch.save({"weight": Bomb()}, path)
    with pytest.raises(InputError, match="no readable safetensors checkpoint"):
        load_model(path)
    assert not (tmp_path / "exploded").exists()


@pytest.mark.parametrize(
    "metadata", [None, {"format": "pt"}, {"bcos": "words"}, {"bcos": "[1]"}, {"bcos": ""}], ids=str
)
def test_safetensors_of_somebody_else(path, metadata):
    save_file({"weight": torch.ones(2)}, path, metadata)
    with pytest.raises(InputError, match="without the description that bcos checkpoints carry"):
        load_model(path)


# ---- states that do not fit ----


def test_other_architecture():
    state = build(5).state_dict()
    state["0.extra"] = state.pop("1.weight")
    with pytest.raises(InputError) as error:
        load_state(build(), state, "file.safetensors")
    assert str(error.value) == (
        "file.safetensors: a checkpoint of another architecture (1 missing: 1.weight; 1 unexpected: 0.extra; "
        "2 of another shape: 0.weight (5, 2, 3, 3) instead of (4, 2, 3, 3), 1.running_var (5,) instead of (4,))"
    )


def test_only_the_first_few_are_named():
    with pytest.raises(InputError, match=re.escape("(6 missing: 0.bias, 0.weight, 1.bias, ...)")):
        load_state(nn.Sequential(*(nn.Linear(1, 1) for _ in range(3))), {}, "x")


def test_a_model_that_does_not_fit_is_left_as_it_was():
    model, other = build(), build().state_dict()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    del other["1.weight"]
    with pytest.raises(InputError):
        load_state(model, other, "x")
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


# ---- writing that fails ----

ACCIDENTS = """
import os, pathlib, resource, signal, sys
from bcos_core.run.checkpoint import write_atomically
from bcos_core.run.error import InputError

root = pathlib.Path(sys.argv[1])
if os.fork() == 0:
    os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    write_atomically(root / "killed" / "model", b"next")
os.wait()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))
for name in ("full", "full and new"):
    try:
        write_atomically(root / name / "model", bytes(3 * 2**20))
    except InputError as error:
        print(error)
"""


@pytest.fixture(scope="module")
def accidents(tmp_path_factory):
    """A folder for each accident, after it, and what was said; all in one process, as each would import torch."""
    root = tmp_path_factory.mktemp("accidents")
    for name in ("killed", "full", "full and new"):
        (root / name).mkdir()
        if "new" not in name:
            (root / name / "model").write_bytes(b"previous")
    done = subprocess.run([sys.executable, "-c", ACCIDENTS, root], capture_output=True, text=True, check=True)
    return root, done.stdout.splitlines()


def test_full_disk(accidents):
    root, lines = accidents
    reason = f"cannot write 3.0 MiB ({os.strerror(errno.EFBIG)})."
    assert lines[0] == f"{root / 'full' / 'model'}: {reason} The previous file is whole."
    assert os.listdir(root / "full") == ["model"]
    assert (root / "full" / "model").read_bytes() == b"previous"
    assert lines[1] == f"{root / 'full and new' / 'model'}: {reason}"
    assert os.listdir(root / "full and new") == []


def test_a_kill_leaves_the_previous_file(accidents):
    """Between the writing and the renaming; what remains is another name, which nothing reads."""
    folder = accidents[0] / "killed"
    assert (folder / "model").read_bytes() == b"previous"
    assert sorted(p.suffix for p in folder.iterdir()) == ["", ".part"]


@pytest.mark.parametrize("place", ["replace", "fsync"])
@pytest.mark.parametrize(
    ("raised", "expected"),
    [(OSError(errno.ENOSPC, "No space left on device"), InputError), (KeyboardInterrupt(), KeyboardInterrupt)],
    ids=["full", "interrupted"],
)
def test_stopped_at_the_last_moment(path, monkeypatch, place, raised, expected):
    save_model(path, build(), {"n": 1})
    before = path.read_bytes()

    def stop(*_):
        raise raised

    monkeypatch.setattr(os, place, stop)
    with pytest.raises(expected) as error:
        save_model(path, build(), {"n": 2})
    if expected is InputError:
        assert str(error.value).endswith("(No space left on device). The previous file is whole.")
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("where", ["none/model.safetensors", "file/model.safetensors", "n" * 250])
def test_places_that_cannot_be(tmp_path, where):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot write 0\.0 MiB") as error:
        write_atomically(tmp_path / where, b"data")
    assert "previous" not in str(error.value)


def test_written_bytes(path):
    write_atomically(path, memoryview(b"data"))
    assert path.read_bytes() == b"data"
