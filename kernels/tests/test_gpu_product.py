"""Triton's kernels: on a GPU where there is one; else by Triton's interpreter, in a process of its own; and compiled.

The interpreter is chosen by a variable that Triton reads when it is first imported.
"""

import os
import subprocess
import sys

import pytest
import torch
from bcos_kernels import conv2d, linear, ops
from bcos_kernels.reference import Needs
from torch import Tensor

triton = pytest.importorskip("triton", reason="comes with torch where that is built for CUDA")

from bcos_kernels import gpu_product  # noqa: E402
from bcos_kernels.gpu_product import PULL_FILTERS, PULL_X, RESPOND, Tiles, choose, pull_back, respond  # noqa: E402

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
RUNS = pytest.mark.skipif(not (INTERPRETED or torch.cuda.is_available()), reason="see test_by_the_interpreter")
EPS = 1e-6
SMALL = (Tiles(32, 16, 32), Tiles(16, 64, 16))
DTYPES = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=["bfloat16", "float16"])


def test_by_the_interpreter():
    """All of this file but what needs a compiler, as a GPU would run it, slowly."""
    if INTERPRETED or torch.cuda.is_available():
        pytest.skip("they run here")
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "-p",
        "no:xdist",
        "-p",
        "no:randomly",
        __file__,
    ]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    done = subprocess.run(command, env={**environment, "TRITON_INTERPRET": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout


@pytest.fixture(autouse=True)
def bfloat16_products(monkeypatch):
    """The interpreter keeps bfloat16 as its bits, and multiplies these: here it multiplies the numbers."""
    if not INTERPRETED:
        return
    import numpy as np
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    original = InterpreterBuilder.create_dot

    def widened(t):
        if t.dtype.scalar != tl.bfloat16:
            return t
        return TensorHandle((t.data.astype(np.uint32) << 16).view(np.float32), tl.float32)

    def create_dot(self, a, b, *rest):
        return original(self, widened(a), widened(b), *rest)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", create_dot)


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def gradients(x: Tensor, weight: Tensor, grad: Tensor, *, detach: bool) -> tuple[Tensor, Tensor, Tensor]:
    """y and both gradients in float64, from what the products are given."""
    x = x.double().cpu().requires_grad_()
    seen = weight.to(x.dtype) if weight.dtype == torch.float16 else weight
    w = seen.double().cpu().requires_grad_()
    unit = w / w.norm(dim=1, keepdim=True).where((w != 0).any(1, keepdim=True), torch.ones(()).double())
    response = x @ unit.T
    cosine = response.abs() / (x.square().sum(1, keepdim=True) + EPS).sqrt()
    y = response * (cosine.detach() if detach else cosine)
    return (y.detach(), *torch.autograd.grad(y, (x, w), grad.double().cpu()))


def assert_near(found: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    """Sums of products that were rounded to half precision: of the largest, four times its rounding."""
    error = (found.double().cpu() - expected).abs().max()
    assert error <= 4 * torch.finfo(dtype).eps * expected.abs().max()


@RUNS
@DTYPES
@pytest.mark.parametrize(("tiles", "detach"), [(SMALL[0], False), (SMALL[1], True)], ids=["whole", "detached"])
@pytest.mark.parametrize("shape", [(70, 48, 40), (7, 40, 18)], ids=str)
def test_against_the_formula(shape, tiles, detach, dtype):
    """Sizes that no tile divides, filters of many lengths, and one of zeros."""
    m, k, n = shape
    x, grad = draw(m, k).to(DEVICE, dtype), draw(m, n, seed=1).to(DEVICE, dtype)
    weight = (draw(n, k, seed=2) * torch.logspace(-2, 2, n)[:, None]).to(DEVICE, dtype)
    weight[1] = 0
    y, norm = respond(x, weight, EPS, tiles)
    expected = gradients(x, weight, grad, detach=detach)
    torch.testing.assert_close(norm.cpu(), (x.cpu().double().square().sum(1) + EPS).sqrt().float(), rtol=1e-6, atol=0)
    assert_near(y, expected[0], dtype)
    assert (y[:, 1] == 0).all()
    grad_x, grad_weight = pull_back(grad, x, weight, y, norm, detach, Needs(), tiles, tiles)
    assert_near(grad_x, expected[1], dtype)
    scaled = weight.float().norm(dim=1).clamp(min=1e-3).cpu()[:, None].double()  # each row on its own scale
    assert_near(grad_weight * scaled.to(DEVICE), expected[2].nan_to_num() * scaled, dtype)
    assert (grad_weight[1] == 0).all()


@RUNS
@DTYPES
def test_filters_in_float32_are_those_of_half_precision(dtype):
    """Under autocast: bfloat16 rounds them, float16 the direction that they have."""
    x, weight, grad = draw(40, 32).to(DEVICE, dtype), draw(24, 32, seed=1).to(DEVICE), draw(40, 24).to(DEVICE, dtype)
    y, norm = respond(x, weight, EPS, SMALL[0])
    seen = weight.to(dtype).float() if dtype == torch.bfloat16 else weight
    expected = gradients(x, seen, grad, detach=False)
    assert_near(y, expected[0], dtype)
    _, grad_weight = pull_back(grad, x, weight, y, norm, False, Needs(False, True), *SMALL)
    assert grad_weight.dtype == torch.float32
    assert_near(grad_weight, expected[2], dtype)


@RUNS
@pytest.mark.parametrize("size", [1e30, 1e-30])
def test_filters_of_any_length(size):
    """Their squares are beyond float32."""
    x, weight = draw(20, 16).to(DEVICE, torch.bfloat16), draw(8, 16, seed=1).to(DEVICE, torch.bfloat16)
    y, norm = respond(x, weight, EPS, SMALL[0])
    scaled = (weight.float() * size).bfloat16()
    expected = gradients(x, scaled.double(), y, detach=False)[0]
    found, _ = respond(x, scaled, EPS, SMALL[0])
    assert_near(found, expected, torch.bfloat16)
    _, grad_weight = pull_back(y, x, scaled, found, norm, False, Needs(False, True), *SMALL)
    assert grad_weight.isfinite().all()


@RUNS
@pytest.mark.filterwarnings(
    "ignore:invalid value encountered:RuntimeWarning"
)  # NumPy, which the interpreter computes by
def test_nan_and_infinity_stay_in_their_rows():
    x, weight = draw(40, 16).to(DEVICE, torch.bfloat16), draw(8, 16, seed=1).to(DEVICE, torch.bfloat16)
    x[3, 2], x[5, 1] = torch.nan, torch.inf
    y, _ = respond(x, weight, EPS, SMALL[0])
    whole = y.isfinite().all(1)
    assert not whole[[3, 5]].any()
    assert whole.sum() == 38


@RUNS
def test_many_rows_are_summed_in_parts_and_in_order():
    x, weight, grad = (
        draw(700, 16).to(DEVICE, torch.float16),
        draw(8, 16).to(DEVICE),
        draw(700, 8).to(DEVICE, torch.float16),
    )
    y, norm = respond(x, weight, EPS, SMALL[0])
    found = [pull_back(grad, x, weight, y, norm, False, Needs(False, True), *SMALL)[1] for _ in range(2)]
    assert torch.equal(*found)
    assert_near(found[0], gradients(x, weight, grad, detach=False)[2], torch.float16)


# ---- the layers ----


@pytest.fixture
def chosen(monkeypatch):
    """Products of ours for every layer that they suit, on this device; how often they were asked for."""
    asked = []

    def take(key, ways):
        asked.append(key[0])
        return next(name for name in ways if name is not None)

    monkeypatch.setattr(gpu_product, "choose", take)
    monkeypatch.setattr(gpu_product, "RESPOND", SMALL[:1])
    monkeypatch.setattr(gpu_product, "PULL_X", SMALL[:1])
    monkeypatch.setattr(gpu_product, "PULL_FILTERS", SMALL[1:])
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    if INTERPRETED:
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
        monkeypatch.setattr(ops, "_products_for", lambda _: gpu_product)
    return asked


def run(kind, x, weight, grad, **options):
    x, weight = x.detach().requires_grad_(), weight.detach().requires_grad_()
    y = (conv2d if kind == "conv2d" else linear)(x, weight, **options)
    return y.detach(), *torch.autograd.grad(y, (x, weight), grad)


@RUNS
@DTYPES
@pytest.mark.parametrize("kind", ["conv2d", "linear"])
def test_layers_by_products_of_ours(chosen, kind, dtype):
    """Shapes, formats and numbers of a layer are the operators', whatever the gradient's format."""
    shape = (2, 16, 5, 3) if kind == "conv2d" else (2, 5, 3, 16)
    x = draw(*shape).to(DEVICE, dtype)
    weight = draw(24, 16, *(1, 1) * (kind == "conv2d"), seed=1).to(DEVICE, dtype)
    grad = (
        draw(2, 24, 5, 3, seed=2).to(DEVICE, dtype) if kind == "conv2d" else draw(2, 5, 3, 24, seed=2).to(DEVICE, dtype)
    )
    x = x.contiguous(memory_format=torch.channels_last) if kind == "conv2d" else x
    for g in (grad, grad[:1].expand_as(grad)):
        chosen.clear()
        found = run(kind, x, weight, g)
        assert chosen == ["respond", "x", "filters", "pull"]
        expected = run(kind, x.double(), weight.double(), g.double())
        assert len(chosen) == 4  # float64 is not asked about
        for ours, theirs in zip(found, expected, strict=True):
            assert ours.dtype == dtype
            assert ours.shape == theirs.shape
            assert ours.stride() == theirs.stride()
            assert_near(ours, theirs.cpu(), dtype)


@RUNS
def test_other_layers_are_left_to_the_operators(chosen, monkeypatch):
    x = draw(2, 16, 5, 3).to(DEVICE, torch.bfloat16).contiguous(memory_format=torch.channels_last)
    weight = draw(24, 16, 1, 1, seed=1).to(DEVICE, torch.bfloat16)
    for options in (
        {"b": 1.5},
        {"b": torch.tensor(2.0, device=DEVICE)},
        {"max_out": 2},
        {"stride": (2, 2)},
        {"padding": (1, 1)},
    ):
        conv2d(x, weight, **options)
    conv2d(x, draw(24, 8, 1, 1).to(DEVICE, torch.bfloat16), groups=2)
    conv2d(x, draw(24, 16, 3, 3).to(DEVICE, torch.bfloat16))
    conv2d(x.contiguous(), weight)
    conv2d(x[:, :12].contiguous(memory_format=torch.channels_last), weight[:, :12].contiguous())
    conv2d(x.float(), weight.float())
    conv2d(x[:0], weight)
    assert not chosen
    for flag in ("benchmark", "deterministic"):
        monkeypatch.setattr(torch.backends.cudnn, flag, flag == "deterministic")
        conv2d(x, weight)
        monkeypatch.setattr(torch.backends.cudnn, flag, flag == "benchmark")
    assert not chosen
    conv2d(x, weight)
    assert chosen == ["respond"]


def test_the_fastest_way_is_taken_and_remembered(monkeypatch):
    calls = []
    milliseconds = {"slow": 3.0, "fast": 1.0}

    def time(way):
        name = way()
        calls.append(name)
        if name == "too large":
            raise triton.runtime.errors.OutOfResources(300, 227, "shared memory")
        if name == "broken":
            raise OSError("no C compiler")
        return milliseconds[name]

    monkeypatch.setattr(gpu_product, "_time", time)
    monkeypatch.setattr(gpu_product, "_fastest", {})
    ways = {name: lambda name=name: name for name in ("slow", "too large", "fast")}
    assert choose(("a shape",), ways) == choose(("a shape",), ways) == "fast"
    assert calls == ["slow", "too large", "fast"]
    assert choose(("another",), {"too large": ways["too large"]}) is None
    with pytest.warns(RuntimeWarning, match="left out of the choice: OSError"):
        assert choose(("a third",), {"broken": lambda: "broken", **ways}) == "fast"


# ---- compiled ----


@pytest.mark.skipif(INTERPRETED, reason="no compiler there")
@pytest.mark.parametrize(("capability", "kind"), [(80, "fp16"), (90, "bf16")])
def test_they_compile(capability, kind):
    """For GPUs that are not here, with their tensor cores; within the shared memory of one block."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    half, number = f"*{kind}", "*fp32"
    flags = {"UNIT": kind == "fp16", "DETACH": False}
    kernels = {
        "prepare": ((number, half, number, "i32"), None),
        "respond": ((half, half, number, half, number, "i32", "i32", "i32", "fp32"), RESPOND),
        "pull_x": ((half, half, half, number, half, number, half, "i32", "i32", "i32"), PULL_X),
        "pull_filters": ((half, half, half, number, number, "i32", "i32", "i32", "i32"), PULL_FILTERS),
        "project": ((number, number, number, half, number, "i32", "i32", "i32"), None),
    }
    shared = {80: 163, 90: 227}[capability] * 1024
    if capability == 80:  # as an A100 has them; the others differ in their tiles alone
        kernels = {name: kernels[name] for name in ("respond", "pull_filters")}
    for name, (signature, tiles) in kernels.items():
        kernel = getattr(gpu_product, f"{name}_kernel")
        # the smallest tiles, which have to serve wherever the larger ones do not fit
        options = {"BLOCK_K": 64, "num_warps": 4, "num_stages": 2} if tiles is None else tiles[-2].options
        constants = {n: {**flags, **options}[n] for n in kernel.arg_names[len(signature) :]}
        if capability == 80:  # a 1 is a constant to Triton
            constants |= dict.fromkeys({"M", "count"} & set(kernel.arg_names), 1)
        types = dict(zip(kernel.arg_names, signature, strict=False)) | dict.fromkeys(constants, "constexpr")
        compiled = triton.compile(
            ASTSource(kernel, types, constants),
            target=GPUTarget("cuda", capability, 32),
            options={"enable_fp_fusion": True, **{n: options[n] for n in ("num_warps", "num_stages")}},
        )
        assert compiled.metadata.shared <= shared, name
        if tiles is not None:
            assert ("wgmma" if capability == 90 else "mma.sync") in compiled.asm["ptx"], name
