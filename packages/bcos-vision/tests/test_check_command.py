"""``bcos-vision check``: verdict, table, exit code; and that the networks here are exact, whatever their family."""

import re
import subprocess
import sys
import textwrap

import bcos_core
import bcos_vision.data
import pytest
import torch
from bcos_core.explanation import check_exactness
from bcos_vision import cli, create_model
from bcos_vision.commands.model_option import ModelChoice
from bcos_vision.data import read_image
from bcos_vision.models import TrainedClassifier
from PIL import Image
from torch import nn

FACTORIES = """
    import torch
    import torch.nn.functional as F
    from torch import nn
    from bcos_core.nn import BcosConv2d, BcosLinear, LogitLayer

    class Squashed(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = BcosConv2d(3, 4, 3)

        def forward(self, x):
            return torch.tanh(self.conv(x))

    def head():
        return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), BcosLinear(4, 5), LogitLayer(bias=-1.0)]

    def exact():
        return nn.Sequential(BcosConv2d(3, 4, 3), *head())

    def broken():
        return nn.Sequential(Squashed(), nn.Conv2d(4, 4, 1), nn.GELU(), *head())

    def many():
        return nn.Sequential(*(nn.Sequential(nn.Conv2d(3, 3, 1), nn.SiLU()) for _ in range(23)), nn.Flatten())

    def whole():
        return type("Whole", (nn.Module,), {"forward": lambda self, x: x.flatten(1).exp()})()

    def silent():
        return nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), nn.Threshold(1e9, 0.0), *head())

    def wide():
        return nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 3))

    def grey():
        return nn.Sequential(nn.Conv2d(1, 4, 3), *head())

    class SequenceFirst(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(3, 4), nn.Linear(8, 3)

        def forward(self, x):
            return self.last(self.first(x.unflatten(1, (2, 3)).transpose(0, 1)).relu().transpose(0, 1).flatten(1))

    built = nn.Sequential(*exact()[:-1], LogitLayer(bias=-1.0, temperature=0.01))

    class Faint(nn.Module):
        def __init__(self):
            super().__init__()
            self.act = nn.GELU()

        def forward(self, x):
            return x + 1e-7 * self.act(x)

    def faint():
        return nn.Sequential(Faint(), nn.Flatten())

    def normed():
        return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(12), nn.Linear(12, 3))

    def features():
        return nn.Conv2d(3, 4, 3)

    def failing():
        raise KeyError("no weights here")

    def number():
        return 3
"""


def run(capsys, *arguments):
    """Exit code, and what was printed."""
    code = 0
    try:
        cli.main(["check", *arguments])
    except SystemExit as stopped:
        code = stopped.code
    return code, capsys.readouterr()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty project, without a store of runs, as the current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (tmp_path / "uv.lock").touch()
    return tmp_path


@pytest.fixture
def nets(folder, monkeypatch):
    """A module of factories in the current folder; its name."""
    (folder / "their_nets.py").write_text(textwrap.dedent(FACTORIES))
    (folder / "damaged_nets.py").write_text("import nothing_of_the_kind\n")
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])  # the command has to find it itself
    yield "their_nets"
    sys.modules.pop("their_nets", None)


# ---- the networks of the catalogue ----


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("resnet20", None),
        ("simple_vit_ti_patch16_224", "cifar"),
        ("vitc_ti_patch1_14", "cifar"),
        ("convnext_tiny", "cifar"),
        ("densenet121", "cifar"),
        ("vgg11", "cifar"),
    ],
)
@pytest.mark.parametrize("variant", ["bcos", "standard"])
def test_every_family_is_exact(name, stem, variant):
    torch.manual_seed(0)
    model = create_model(name, num_classes=3, variant=variant, stem=stem).eval()
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if parameter_name.endswith("bias"):
                parameter.uniform_(-0.1, 0.1)
            elif "layer_scale" in parameter_name:
                parameter.fill_(1.0)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.uniform_(-0.5, 0.5)
    found = check_exactness(model, torch.rand(1, 3, 32, 32))
    assert not [f for f in found if f.breaks]
    assert max(f.error for f in found) < 1e-5
    assert len(found) > 20


def test_a_plain_activation_in_a_network_of_the_catalogue_is_found():
    model = create_model("convnext_tiny", num_classes=3, variant="standard", stem="cifar").eval()
    model.network.features[3][1].activation = nn.GELU()
    found = [f.path for f in check_exactness(model, torch.rand(1, 3, 32, 32)) if f.breaks]
    assert found == ["network.features.3.1.activation"]


# ---- the command ----


@pytest.mark.parametrize("variant", ["bcos", "baseline", "standard"])
def test_a_name_of_the_catalogue(capsys, variant):
    code, printed = run(capsys, "resnet20", "--variant", variant, "--dtype", "float64")
    assert code == 0
    (line,) = printed.out.splitlines()
    assert line.startswith(f"resnet20 ({variant}, untrained): exact, completeness error ")
    assert float(re.search(r"error (\S+),", line)[1]) <= 1e-12
    assert line.endswith("modules, 2 random images 3x32x32, float64)")


def test_an_untrained_model_has_no_initial_values(capsys, monkeypatch):
    """Biases and statistics that are zero add nothing that could be missing, and layer scales of 1e-6 hide a lot."""
    seen = {}
    monkeypatch.setattr(bcos_core.explanation, "check_exactness", lambda model, x, **_: seen.update(model=model) or ())
    run(capsys, "resnet20", "--variant", "standard")
    for norm in (m for m in seen["model"].modules() if isinstance(m, nn.BatchNorm2d)):
        assert all(v.abs().min() > 0 for v in (norm.bias, norm.running_mean))
        assert (norm.weight != 1).any()
        assert not norm.training
        assert norm.momentum == 0.1
    run(capsys, "convnext_tiny", "--variant", "standard", "--shape", "3,32,32")
    scales = [p for name, p in seen["model"].named_parameters() if name.endswith("layer_scale")]
    assert scales
    assert all(0.5 <= scale.min() <= scale.max() <= 1.5 for scale in scales)


def test_an_alias_says_its_variant(capsys):
    code, printed = run(capsys, "standard_simple_vit_ti_patch16_224", "--shape", "3,32,32")
    assert code == 0
    assert printed.out.startswith("standard_simple_vit_ti_patch16_224 (standard, untrained): exact")


def test_modules_at_fault_are_listed_worst_first(nets, capsys):
    before = list(sys.path)
    code, printed = run(capsys, f"{nets}:broken", "--shape", "3,8,8", "--dtype", "float64", "--seed", "3")
    assert code == 1
    assert sys.path == before
    verdict, empty, head, *rows = printed.out.splitlines()
    assert verdict.startswith(f"{nets}:broken: not exact, completeness error ")
    assert verdict.endswith("2 random images 3x8x8, float64)")
    assert not empty
    assert head.split() == ["module", "kind", "error", "why"]
    assert sorted(row.split()[:2] for row in rows) == [["0", "Squashed"], ["2", "GELU"]]
    errors = [float(row.split()[2]) for row in rows]
    assert errors == sorted(errors, reverse=True)
    (gelu,) = [row for row in rows if " GELU " in row]
    assert gelu.endswith("not detached: bcos_core.bcosify replaces it")
    (squashed,) = [row for row in rows if "Squashed" in row]
    assert "its own forward: " in squashed


def test_numbers_of_the_verdict(nets, capsys):
    torch.manual_seed(5)
    code, printed = run(capsys, f"{nets}:built", "--shape", "3,8,8", "--num_images", "3", "--dtype", "float64")
    assert code == 0
    model = sys.modules[nets].built
    x = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    logit = model(x).max(1).values.detach()
    # the remainder is the bias of the logits, -1, and the rest is of the pixels
    share = (1 / (1 + (logit + 1).abs())).mean()
    assert 0.1 < share < 0.9
    assert f"remainder share {share:.0%} (" in printed.out
    assert f"completeness error {bcos_core.explain(model, x).completeness_error.max():.1e}, " in printed.out
    assert "(6 modules, 3 random images 3x8x8" in printed.out


def test_a_fault_that_the_completeness_error_does_not_show(nets, capsys):
    """On these images; where the shortcut is small, it may."""
    code, printed = run(capsys, f"{nets}:faint", "--shape", "3,2,2", "--dtype", "float32")
    assert float(re.search(r"completeness error (\S+),", printed.out)[1]) < 1e-6
    assert code == 1
    assert ": not exact, " in printed.out
    assert "0.act" in printed.out


def test_the_model_is_put_in_evaluation_mode(nets, capsys):
    """In training a batch norm refuses a single image."""
    assert run(capsys, f"{nets}:normed", "--shape", "3,2,2", "--num_images", "1")[0] == 0


def test_no_more_than_twenty_are_listed(nets, capsys):
    code, printed = run(capsys, f"{nets}:many", "--shape", "3,2,2")
    assert code == 1
    lines = printed.out.splitlines()
    assert sum(" SiLU " in line for line in lines) == 20
    assert lines[-1] == "  ... and 3 more"


def test_the_model_itself_may_be_at_fault(nets, capsys):
    code, printed = run(capsys, f"{nets}:whole", "--shape", "3,2,2", "--num_images", "1")
    assert code == 1
    assert "(the model)  Whole" in printed.out
    assert "1 random image 3x2x2" in printed.out


def test_modules_that_answer_zeros_are_named(nets, capsys):
    code, printed = run(capsys, f"{nets}:silent", "--shape", "3,4,4")
    assert code == 0
    assert printed.out.splitlines()[1:] == [
        "  not seen: 2 and 3 more answered zeros alone",
        "  all contributions are 0: they add up, and explain nothing",
    ]


def test_inputs_that_are_no_images(nets, capsys):
    assert run(capsys, f"{nets}:wide", "--shape", "6")[0] == 0


def test_an_error_that_is_no_modules_fault_is_not_called_exact(nets, capsys):
    """As many steps as images: a bias is led to the wrong image, as explain's completeness error says."""
    code, printed = run(capsys, f"{nets}:SequenceFirst", "--shape", "6")
    assert code == 1
    assert ": not exact, " in printed.out
    assert "no module is at fault" in printed.out
    code, printed = run(capsys, f"{nets}:SequenceFirst", "--shape", "6", "--num_images", "1")
    assert code == 0


@pytest.fixture
def model_file(folder):
    """A file whose images have two sizes: 10x12, cut out of some scaled to 14."""
    torch.manual_seed(0)
    model = create_model("resnet20", num_classes=2, variant="standard")
    path = folder / "two.safetensors"
    TrainedClassifier(model, ("ant", "bee"), (10, 12), "insects", resize=14).save(path)
    return path


def test_a_model_file_on_pictures(folder, model_file, image_folder, capsys, monkeypatch):
    read = []
    monkeypatch.setattr(
        bcos_vision.data, "read_image", lambda *arguments: read.append(arguments) or read_image(*arguments)
    )
    pictures = [str(image_folder / "val" / name / "000.png") for name in ("ant", "bee")]
    for arguments in (("two.safetensors",), ("--model_file", "two.safetensors")):
        code, printed = run(capsys, *arguments, "--images", *pictures)
        assert code == 0
        assert printed.out.startswith("two.safetensors: exact, completeness error ")
        assert "2 images 3x10x12, float32" in printed.out
    assert read == [(picture, 3, (10, 12), 14) for picture in pictures] * 2


def test_pictures_are_what_the_model_is_given(nets, folder, capsys):
    """One black picture: nothing but the remainder."""
    Image.new("RGB", (8, 8)).save(folder / "black.png")
    code, printed = run(capsys, f"{nets}:exact", "--shape", "3,8,8", "--images", "black.png")
    assert code == 0
    assert "remainder share 100%" in printed.out
    assert "1 image 3x8x8" in printed.out
    assert "explain nothing" not in printed.out  # of black nothing is to be explained


def test_a_public_checkpoint_with_its_name(folder, capsys):
    torch.manual_seed(0)
    torch.save(create_model("resnet20", num_classes=4, variant="standard").network.state_dict(), "public.pth")
    code, printed = run(capsys, "public.pth", "--model", "resnet20", "--variant", "standard")
    assert code == 0
    assert printed.out.startswith("public.pth: exact")


@pytest.mark.parametrize("arguments", [("0123abcd",), ("--run", "0123abcd")])
def test_a_run(folder, model_file, capsys, monkeypatch, arguments):
    """As the other commands find it, of which test_cli.py has a whole run."""

    def choose(options, *, name_column):
        assert (options.run, options.model_file) == ("0123abcd", None)
        return ModelChoice(TrainedClassifier.load(model_file), folder, None, named=True)

    monkeypatch.setattr(sys.modules["bcos_vision.commands.check"], "choose_model", choose)
    code, printed = run(capsys, *arguments)
    assert code == 0
    assert printed.out.startswith("run 0123abcd: exact")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((), "give one of MODEL, --run RUN_ID and --model_file FILE"),
        (("resnet20", "--run", "0123"), "give one of MODEL, --run RUN_ID and --model_file FILE"),
        (("resnet21",), 'unknown model "resnet21"; did you mean "resnet'),
        (("resnet20", "--model", "resnet20"), "--model: belongs to --model_file"),
        (("resnet20", "--class_names", "x"), "--class_names: belongs to --model_file"),
        (("resnet20", "--variant", "bcoss"), "bcoss"),
        (("resnet20", "--shape", "3,32"), "--shape: resnet20 (bcos, untrained) cannot take images of shape 3,32 ("),
        (("resnet20", "--shape", "1,32,32"), "images: expected shape (N, 3, H, W), got (2, 1, 32, 32)"),
        (("simple_vit_ti_patch16_224", "--shape", "3,30,32"), "takes sides that are multiples of 16 pixels, got 30x32"),
        (("resnet20", "--shape", "3,32x32"), "--shape: expected positive integers separated by commas, as in 3,32,32"),
        (("resnet20", "--shape", "3,0,32"), "--shape: expected positive integers separated by commas"),
        (("resnet20", "--num_images", "0"), "--num_images: expected at least 1, got 0"),
        (("resnet20", "--images", "none.png"), "none.png: no such file"),
        (("resnet20", "--dtype", "float16"), "float16"),
        (("resnet20", "--thresh", "1"), "unknown option --thresh"),
        (("none.safetensors",), "No such file or directory: none.safetensors"),
        (("0123abcd",), "there is no run yet"),
        (("no_such_nets:make",), "no_such_nets:make: cannot import no_such_nets (ModuleNotFoundError: No module named"),
        (("damaged_nets:make",), "damaged_nets:make: cannot import damaged_nets (ModuleNotFoundError: No module named"),
        ((":make",), ":make: cannot import (ValueError: Empty module name)"),
        (("their_nets:exakt",), 'their_nets:exakt: their_nets has no "exakt"; did you mean "exact"?'),
        (("their_nets:failing",), "their_nets:failing: failing() failed (KeyError: 'no weights here')"),
        (("their_nets:number",), "their_nets:number: expected an nn.Module from number(), got int"),
        (("their_nets:exact",), "--shape: needed with their_nets:exact"),
        (
            ("their_nets:exact", "--shape", "4,8,8"),
            "their_nets:exact cannot take images of shape 4,8,8 (ValueError: x: expected 3 channels",
        ),
        (
            ("their_nets:features", "--shape", "3,8,8"),
            "expected logits of shape (2, K) for 2 images, got shape (2, 4, 6",
        ),
        (
            ("their_nets:wide", "--shape", "6", "--images", "x.png"),
            "--images: they have shape 1,H,W or 3,H,W; their_nets",
        ),
    ],
)
def test_mistakes_get_one_line(nets, capsys, arguments, line):
    code, printed = run(capsys, *arguments)
    assert code == 2
    assert line in printed.err
    assert printed.err.count("\n") == 1
    assert not printed.out


def test_help_is_quick_and_needs_no_heavy_library():
    code = (
        "import sys\nfrom bcos_vision.cli import main\n"
        "try: main(['check', '--help'])\nexcept SystemExit as stop: assert not stop.code\n"
        "heavy = {'torch', 'lightning', 'mlflow', 'torchvision', 'matplotlib', 'sklearn', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "usage: bcos-vision check" in done.stdout
