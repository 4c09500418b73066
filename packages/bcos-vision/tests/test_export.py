"""Exported files against eager, against what autograd says, and where this project cannot be imported."""

import json
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from bcos_core import explain
from bcos_core import nn as bnn
from bcos_core.nn.detachable import Detachable
from bcos_core.run.error import InputError
from bcos_vision import create_model, export
from bcos_vision.models import ImageClassifier, TrainedClassifier
from torch import nn

CLASSES = ("ant", "bee", "wasp")


class Attention(Detachable):
    """Softmax attention between pixels, whose weights are constants in explanation mode; the mean over pixels."""

    def __init__(self, channels, heads):
        super().__init__()
        self.heads = heads
        self.project = bnn.BcosLinear(channels, 3 * channels)

    def forward(self, x):
        x = x.flatten(2).mT
        q, k, v = self.project(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        q, k = (q.detach(), k.detach()) if self.detach else (q, k)
        return (x + F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)).mean(1)


class Gate(Detachable):
    """GELU, its gate a constant in explanation mode."""

    def forward(self, x):
        gate = (1 + torch.erf(x / 2**0.5)) / 2
        return x * (gate.detach() if self.detach else gate)


def head(channels, **options):
    return [bnn.BcosConv2d(channels, 3, 1, **options), nn.AdaptiveAvgPool2d(1), nn.Flatten()]


NETWORKS = {
    "B-cos": lambda: [
        bnn.BcosConv2d(4, 6, 3, stride=2, padding=1, b=1.5, max_out=2),
        bnn.BatchNormUncentered2d(6),
        nn.AvgPool2d(3, 2, 1, count_include_pad=False),
        bnn.BcosConv2d(6, 6, (2, 3), stride=(2, 1), dilation=(1, 2), padding=(1, 2), groups=3),
        *head(6, b=2.5),
        bnn.LogitLayer(bias=-2.0, temperature=0.5),
    ],
    "depthwise, attention": lambda: [
        bnn.BcosConv2d(4, 8, 4, stride=4),
        bnn.BcosConv2d(8, 8, 3, padding=1, groups=8),
        bnn.LayerNormUncentered2d(8, bias=True),
        Gate(),
        Attention(8, 2),
        bnn.BcosLinear(8, 3, max_out=2, b=1.5),
    ],
    "plain": lambda: [
        nn.Conv2d(4, 6, 3),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, 1),
        nn.AdaptiveAvgPool2d(5),
        nn.Flatten(),
        nn.Linear(150, 3),
    ],
}


def build(name, *more):
    torch.manual_seed(0)
    network = nn.Sequential(*NETWORKS[name](), *more)
    return ImageClassifier(bnn.InverseEncoding(), network, in_channels=2, num_classes=3, description={}).eval()


def operators(program):
    return {str(n.target) for n in program.graph.nodes if n.op == "call_function"}


def check_explanation(model, images, target, found):
    expected = explain(model, images, target)
    assert found["logits"].shape == (len(images), model.num_classes)
    for name in ("logits", "contributions", "remainder"):
        value = getattr(expected, name)
        scale = (expected.logits if name == "remainder" else value).abs().max()
        assert (torch.as_tensor(found[name]) - value).abs().max() < 1e-5 * scale, name
    total = torch.as_tensor(found["contributions"]).flatten(1).double().sum(1) + torch.as_tensor(found["remainder"])
    logit = expected.logits.gather(1, expected.target[:, None])[:, 0]
    assert (total - logit).abs().max() < 1e-5 * logit.abs().clamp(min=1).max()


@pytest.mark.parametrize("name", NETWORKS)
def test_program_explains_as_eager_does(name):
    model = build(name)
    program = export.export_program(model, image_size=(12, 12), explanation=True, target="given")
    foreign = {o for o in operators(program) if "bcos" in o or "backward" in o}
    assert not foreign
    for n in (1, 3):
        images, target = torch.rand(n, 2, 12, 12), torch.arange(n)
        check_explanation(model, images, target, program.module()(images, target))
    assert all(not m.detach for m in model.modules() if isinstance(m, Detachable))  # left as it was


@pytest.mark.parametrize(("variant", "channels", "side"), [("bcos", 3, 32), ("baseline", 1, 8), ("standard", 1, 8)])
def test_program_answers_as_eager_does(variant, channels, side):
    model = create_model("resnet20", num_classes=4, in_channels=channels, variant=variant).eval()
    program = export.export_program(model, image_size=(side, side))
    assert not [o for o in operators(program) if "bcos" in o]
    for n in (1, 3):
        images = torch.rand(n, channels, side, side)
        with torch.no_grad():
            found, expected = program.module()(images)["logits"], model(images)
        assert (found - expected).abs().max() < 1e-5 * expected.abs().max()


def test_pt2_runs_where_this_project_is_not(tmp_path):
    model = build("B-cos")
    written = export.export_file(model, tmp_path / "m.pt2", image_size=(12, 12), explanation=True, classes=CLASSES)
    assert [p.name for p in tmp_path.iterdir()] == ["m.pt2"]
    assert 0 <= written.errors["torch"] < 1e-5
    images = torch.rand(3, 2, 12, 12)
    torch.save(images, tmp_path / "images.pt")
    code = """
import json, sys
class Refuse:
    def find_spec(self, name, *_):
        if name.split(".")[0] in ("bcos_kernels", "bcos_core", "bcos_vision"): raise ImportError(name)
sys.meta_path.insert(0, Refuse())
import torch
extra = {"description.json": ""}
run = torch.export.load("m.pt2", extra_files=extra).module()
torch.save(run(torch.load("images.pt")), "found.pt")
print(json.loads(extra["description.json"])["classes"])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(list(CLASSES))
    check_explanation(model, images, None, torch.load(tmp_path / "found.pt"))


def test_onnx_explains_as_eager_does(tmp_path):
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    path = tmp_path / "m.onnx"
    model = build("B-cos")
    written = export.export_file(model, path, image_size=(12, 12), explanation=True, target="given", classes=CLASSES)
    assert [p.name for p in tmp_path.iterdir()] == ["m.onnx"]
    assert max(written.errors["torch"], written.errors["onnxruntime"]) < 1e-5
    graph = onnx.load(path).graph
    assert {node.domain for node in graph.node} == {""}
    assert [v.name for v in graph.input] == ["images", "target"]
    assert {v.type.tensor_type.shape.dim[0].dim_param for v in (*graph.input, *graph.output)} == {"batch"}
    assert str(export.__file__).encode() not in path.read_bytes()  # nor any other path of this machine
    session = runtime.InferenceSession(path)
    names = ["logits", "contributions", "remainder"]
    assert [v.name for v in session.get_outputs()] == names
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == list(CLASSES)
    for n in (1, 4):
        images, target = torch.rand(n, 2, 12, 12), torch.arange(n) % 3
        found = session.run(names, {"images": images.numpy(), "target": target.numpy()})
        check_explanation(model, images, target, dict(zip(names, found, strict=True)))


def test_command(tmp_path, monkeypatch, capsys):
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    from bcos_vision.commands.export import export as command

    monkeypatch.chdir(tmp_path)
    model = create_model("resnet20", num_classes=3, in_channels=1, variant="baseline")
    TrainedClassifier(model, CLASSES, (8, 8), "digits").save(tmp_path / "m.safetensors")
    command(["--model_file", "m.safetensors", "--out", "new/m.onnx", "--explanation"])
    printed = capsys.readouterr().out
    for line in ("saved new/m.onnx, ", "input   images", "output  contributions", "checked in onnxruntime: largest"):
        assert line in printed
    recipe = printed.partition("run it:\n")[2].replace("session.run(", "found = session.run(").replace("  ", "")
    images = torch.rand(2, 1, 8, 8)
    exec(recipe, scope := {"images": images.numpy()})
    names = ("logits", "contributions", "remainder")
    found = dict(zip(names, map(torch.from_numpy, scope["found"]), strict=True))
    check_explanation(model.eval(), images, found["logits"].argmax(1), found)
    for arguments, line in (
        (["--out", "m.onx"], "--out: expected a file name that ends in .onnx or .pt2, got m.onx"),
        (["--out", "m.onnx", "--target", "given"], "--target given: needs --explanation"),
    ):
        with pytest.raises(InputError, match=line):
            command(["--model_file", "m.safetensors", *arguments])


class Noise(nn.Module):
    def forward(self, x):
        return x + torch.rand_like(x)


def test_a_file_that_is_wrong_is_not_kept(tmp_path):
    path = tmp_path / "m.pt2"
    path.write_text("older")
    with pytest.raises(InputError, match=r"m\.pt2: not written, torch is .* from eager"):
        export.export_file(build("plain", Noise()), path, image_size=(12, 12))
    assert path.read_text() == "older"
    assert [p.name for p in tmp_path.iterdir()] == ["m.pt2"]


def test_mistakes(tmp_path):
    model = build("plain")
    with pytest.raises(InputError, match=r"path: expected a file name that ends in \.pt2 or \.onnx, got .*m\.pth"):
        export.export_file(model, tmp_path / "m.pth", image_size=(12, 12))
    with pytest.raises(InputError, match='target: expected one of predicted, given, got "both"'):
        export.export_program(model, image_size=(12, 12), explanation=True, target="both")
    model.network = nn.Sequential(nn.AvgPool2d(2, ceil_mode=True), *head(4))
    with pytest.raises(InputError, match=r"no portable form of aten\.avg_pool2d_backward"):
        export.export_program(model, image_size=(11, 11), explanation=True)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize(("kernel", "stride", "padding", "dilation"), [
    ((3, 3), (2, 2), (1, 1), (1, 1)), ((1, 1), (3, 2), (0, 0), (1, 1)), ((2, 3), (2, 3), (1, 2), (2, 1)),
])  # fmt: skip
def test_transpose_of_a_convolution(transposed, groups, kernel, stride, padding, dilation):
    x = torch.rand(2, 4, 11, 10, dtype=torch.float64, requires_grad=True)
    weight = torch.rand(4, 8 // groups if transposed else 4 // groups, *kernel, dtype=torch.float64)
    window = (stride, padding, dilation, transposed, (0, 0), groups)
    y = torch.ops.aten.convolution(x, weight, None, *window)
    grad = torch.rand_like(y)
    found = export._convolution_backward(grad, x, weight, None, *window, [True, False, False])[0]
    torch.testing.assert_close(found, torch.autograd.grad(y, x, grad)[0])


@pytest.mark.parametrize("pool", [
    lambda x: F.avg_pool2d(x, 3, 2, 1), lambda x: F.avg_pool2d(x, (2, 3), None, (1, 0), count_include_pad=False),
    lambda x: F.avg_pool2d(x, 2, 3, divisor_override=3), lambda x: F.adaptive_avg_pool2d(x, (4, 2)),
    lambda x: F.adaptive_avg_pool2d(x, (12, 10)), lambda x: F.max_pool2d(x, 3, 2, 1, ceil_mode=True),
])  # fmt: skip
def test_transpose_of_pooling(pool):
    x = torch.rand(2, 3, 12, 10, dtype=torch.float64, requires_grad=True)
    y = pool(x)
    grad = torch.rand_like(y)
    expected = torch.autograd.grad(y, x, grad, retain_graph=True)[0]
    with Replacing() as mode:
        found = torch.autograd.grad(y, x, grad)[0]
    torch.testing.assert_close(found, expected)
    assert mode.replaced == 1


class Replacing(torch.utils._python_dispatch.TorchDispatchMode):
    """Compute backward operators by what export replaces them with."""

    replaced = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.replaced += func in export._TRANSPOSES
        return export._TRANSPOSES.get(func, func)(*args, **(kwargs or {}))
