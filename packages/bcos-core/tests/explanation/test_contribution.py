"""explain: contributions against linear maps frozen by hand, and the promise to leave everything as it was."""

import dataclasses
import re
import threading

import numpy as np
import pytest
import torch
from bcos_core import Explanation, explain, explanation_mode
from bcos_core import nn as bnn
from bcos_core.explanation import EncodingModel, check_exactness, render_rgba
from torch import nn

LIMITS = {torch.float32: 1e-5, torch.float64: 1e-12}


def attributed(model, x):
    """What the contributions belong to, and the rest of the network."""
    return (model.encode(x), model.network) if isinstance(model, EncodingModel) else (x, model)


# ---- every network of the list ----


@pytest.mark.parametrize("dtype", LIMITS, ids=str)
def test_completeness(network, dtype, prepare):
    model, x = prepare(network, dtype)
    logits = model(x.clone())
    for target in range(logits.shape[1] if logits.shape[1] < 5 else 5):
        found = explain(model, x, target)
        assert (found.completeness_error <= LIMITS[dtype]).all()
        total = found.contributions.double().flatten(1).sum(1) + found.remainder
        error = (total - logits[:, target]).abs() / logits[:, target].abs().clamp(min=1)
        assert (error <= LIMITS[dtype]).all()


def test_contributions_are_those_of_the_frozen_linear_map(network, prepare, frozen_map, assert_close):
    """W(x) column by column from basis vectors, the remainder from a zero input: no autograd, no hooks."""
    model, x = prepare(network)
    found = explain(model, x)
    for i in range(len(x)):
        inputs, rest = attributed(model, x[i : i + 1])
        frozen = frozen_map(rest, inputs)
        assert_close(frozen(inputs), model(x[i : i + 1].clone()))  # the frozen map is the model's, at x
        zero = frozen(torch.zeros_like(inputs))[0]
        basis = torch.eye(inputs.numel(), dtype=x.dtype).view(-1, *inputs.shape[1:])
        columns = frozen(basis) - zero
        row = columns[:, found.target[i]].view_as(inputs)
        assert_close(found.weights[i : i + 1], row, tolerance=1e-10)
        assert_close(found.contributions[i : i + 1], row * inputs, tolerance=1e-10)
        torch.testing.assert_close(found.remainder[i], zero[found.target[i]], rtol=1e-10, atol=1e-12)


def test_what_an_explanation_holds(network, prepare):
    model, x = prepare(network)
    found = explain(model, x)
    inputs, _ = attributed(model, x)
    logits = model(x.clone()).detach()
    torch.testing.assert_close(found.logits, logits)
    assert torch.equal(found.target, logits.argmax(1))
    assert torch.equal(found.inputs, inputs)
    assert torch.equal(found.contributions, found.weights * found.inputs)
    assert found.remainder.shape == found.completeness_error.shape == (3,)
    for field in dataclasses.fields(found):
        value = getattr(found, field.name)
        assert not value.requires_grad
        assert value.dtype == (torch.int64 if field.name == "target" else x.dtype)


def test_batch_equals_one_by_one(network, prepare, assert_close):
    model, x = prepare(network)
    together = explain(model, x, [0, 1, 1])
    for i, target in enumerate([0, 1, 1]):
        alone = explain(model, x[i : i + 1], target)
        assert_close(together.contributions[i : i + 1], alone.contributions)
        torch.testing.assert_close(together.remainder[i : i + 1], alone.remainder)


def test_nothing_is_touched(network, prepare):
    model, x = prepare(network)
    modules = list(model.modules())
    model.train()
    modules[-1].eval()
    given = x.clone().requires_grad_()
    for i, parameter in enumerate(model.parameters()):
        parameter.grad = torch.full_like(parameter, 7.0) if i % 2 else None
        parameter.requires_grad_(i % 3 > 0)
    for module in modules[1:2]:
        if isinstance(module, bnn.Detachable):
            module.detach = True
    record = lambda: (  # noqa: E731
        [m.training for m in modules],
        [getattr(m, "detach", None) for m in modules],
        [len(m._forward_hooks) + len(m._backward_hooks) + len(m._forward_pre_hooks) for m in modules],
        [p.requires_grad for p in model.parameters()],
    )
    before, state = record(), {name: value.clone() for name, value in model.state_dict().items()}
    explain(model, given)
    assert record() == before
    assert torch.equal(given, x)
    assert given.grad is None
    assert given.requires_grad
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name])
    for i, parameter in enumerate(model.parameters()):
        assert parameter.grad is None if i % 2 == 0 else (parameter.grad == 7).all()


def test_same_from_training_mode_without_grad_and_in_inference_mode(network, prepare):
    model, x = prepare(network)
    expected = explain(model, x)
    model.train()
    found = [explain(model, x)]
    with torch.no_grad():
        found.append(explain(model, x))
    with torch.inference_mode():
        found.append(explain(model, x + 0))  # an inference tensor
        assert torch.is_inference_mode_enabled()
    for other in found:
        for field in dataclasses.fields(Explanation):
            value = getattr(other, field.name)
            torch.testing.assert_close(value, getattr(expected, field.name))
            assert not value.is_inference()


# ---- the completeness error can fail ----


@pytest.mark.parametrize(
    "body",
    [
        lambda: [nn.Linear(8, 16), nn.GELU()],
        lambda: [nn.Linear(8, 16), nn.LayerNorm(16)],
        lambda: [nn.Unflatten(1, (4, 2)), nn.GroupNorm(2, 4), nn.Flatten(), nn.Linear(8, 16), nn.ReLU()],
        lambda: [nn.Linear(8, 16), nn.Sigmoid()],
        lambda: [nn.BatchNorm1d(8, track_running_stats=False), nn.Linear(8, 16)],
    ],
    ids=["GELU", "LayerNorm", "GroupNorm", "Sigmoid", "BatchNorm without statistics"],
)
def test_completeness_error_of_a_network_that_is_not_piecewise_linear(body):
    model, x = nn.Sequential(*body(), nn.Linear(16, 3)).double(), 3 * torch.randn(4, 8, dtype=torch.float64)
    with torch.no_grad():
        model[-1].weight.mul_(5)
    found = explain(model, x, 1)
    assert (found.completeness_error > 1e-3).all()
    # |Σ x·∂logit/∂x + Σ bias·∂logit/∂bias - logit| / max(1, |logit|), the gradients taken of model and biases
    leaf = x.clone().requires_grad_()
    logits = model(leaf)[:, 1]
    biases = [p for name, p in model.named_parameters() if name.endswith("bias")]
    (gradient,) = torch.autograd.grad(logits.sum(), leaf, retain_graph=True)
    torch.testing.assert_close(found.contributions, gradient * x)
    remainder = torch.stack(
        [
            sum((g * p).sum() for g, p in zip(torch.autograd.grad(z, biases, retain_graph=True), biases, strict=True))
            for z in logits
        ]
    )
    torch.testing.assert_close(found.remainder, remainder.detach())
    error = ((gradient * x).sum(1) + remainder - logits).abs() / logits.abs().clamp(min=1)
    torch.testing.assert_close(found.completeness_error, error.detach())


def test_completeness_error_sees_a_scale_that_is_not_detached(small):
    """A scale that explanation mode does not know is no constant: the sum is off by its power."""

    class Homemade(nn.Module):
        def forward(self, x):
            return x * x.abs()

    model, x = small
    model.network.append(Homemade())
    found = explain(model, x)
    logit = found.logits.gather(1, found.target[:, None])[:, 0]  # z |z|, whose gradient is 2 |z|
    total = found.contributions.flatten(1).sum(1) + found.remainder
    torch.testing.assert_close(total, 2 * logit)
    torch.testing.assert_close(found.completeness_error, logit.abs() / logit.abs().clamp(min=1))
    assert (found.completeness_error > 0.01).all()


def test_completeness_error_sees_a_constant_that_no_module_owns():
    class Shifted(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = bnn.BcosLinear(4, 3)
            self.position = nn.Parameter(torch.ones(4))

        def forward(self, x):
            return self.layer(x + self.position)

    model, x = Shifted().double(), torch.rand(5, 4).double()
    found = explain(model, x)
    missing = (found.weights * model.position).sum(1).abs()  # what the position added, of which x knows nothing
    logit = found.logits.gather(1, found.target[:, None])[:, 0]
    torch.testing.assert_close(found.completeness_error, (missing / logit.abs().clamp(min=1)).detach())


@pytest.mark.parametrize("scale", [0.01, 1000.0])
def test_completeness_error_is_relative_above_one(scale):
    """|sum + remainder - logit| / max(1, |logit|), on a network that is off by exactly half its logit."""

    class Square(nn.Module):
        def forward(self, x):
            return scale * x.square()

    found = explain(Square(), torch.tensor([[1.0, 2.0]], dtype=torch.float64), 0)
    assert found.contributions.sum().item() == pytest.approx(2 * scale)
    assert found.completeness_error.item() == pytest.approx(scale / max(1, scale))


# ---- targets ----


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (2, [2, 2, 2]),
        ([2, 0, 1], [2, 0, 1]),
        ((2, 0, 1), [2, 0, 1]),
        (torch.tensor([2, 0, 1]), [2, 0, 1]),
        (torch.tensor(1), [1, 1, 1]),
        (torch.tensor([2, 0, 1], dtype=torch.int32), [2, 0, 1]),
        (np.array([2, 0, 1]), [2, 0, 1]),
        (np.int64(1), [1, 1, 1]),
    ],
    ids=repr,
)
def test_targets(small, target, expected):
    model, x = small
    found = explain(model, x, target)
    assert found.target.tolist() == expected
    assert found.target.dtype == torch.int64
    every = torch.stack([explain(model, x, k).contributions for k in range(3)], 1)
    assert torch.equal(found.contributions, every[torch.arange(3), expected])


def test_target_is_copied(small):
    model, x = small
    target = torch.tensor([0, 1, 2])
    found = explain(model, x, target)
    target.zero_()
    assert found.target.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (3, "target: expected classes from 0 to 2, got 3 to 3"),
        (-1, "target: expected classes from 0 to 2, got -1 to -1"),
        ([0, 1, 7], "target: expected classes from 0 to 2, got 0 to 7"),
        ([0, 1], "target: expected 3 classes, one for each input, got 2"),
        (1.0, "target: expected an integer or 3 of them, got 1.0"),
        (True, "target: expected an integer or 3 of them, got True"),
        ([[0], [1], [2]], "target: expected an integer or 3 of them"),
        ("cat", "target: expected an integer or 3 of them, got 'cat'"),
        (["a", "b", "c"], "target: expected an integer or 3 of them, got ['a', 'b', 'c']"),
        ([[0], [1, 2], []], "target: expected an integer or 3 of them"),
    ],
)
def test_target_errors(small, target, message):
    model, x = small
    with pytest.raises(ValueError, match=re.escape(message)):
        explain(model, x, target)
    assert not any(m.detach for m in model.modules() if isinstance(m, bnn.Detachable))


# ---- inputs and models that are none ----


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (torch.ones(3, 4, dtype=torch.int64), "x: expected a floating-point batch of shape (N, ...), got torch.int64"),
        (torch.rand(4), "x: expected a floating-point batch of shape (N, ...), got torch.float32 of shape (4,)"),
        ([[1.0, 2.0]], "x: expected a floating-point batch of shape (N, ...), got list"),
    ],
)
def test_input_errors(x, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        explain(bnn.BcosLinear(4, 2), x)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (nn.Unflatten(1, (2, 2)), "model: expected an output of shape (3, K), got shape (3, 2, 2)"),
        (nn.Flatten(0), "model: expected an output of shape (3, K), got shape (12,)"),
        (nn.LSTM(4, 2), "model: expected an output of shape (3, K), got tuple"),
    ],
)
def test_output_errors(model, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        explain(model, torch.rand(3, 4))
    assert model.training


def test_output_that_does_not_depend_on_the_input():
    class Constant(nn.Module):
        @torch.no_grad()
        def forward(self, x):
            return 2 * x

    with pytest.raises(ValueError, match="model: its output does not depend on x"):
        explain(Constant(), torch.rand(3, 4))


def test_an_input_that_is_not_used():
    """Only a bias: no contribution, and the whole logit in the remainder."""

    class Bias(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 2)

        def forward(self, x):
            return self.layer(torch.zeros_like(x))

    model = Bias()
    found = explain(model, torch.rand(3, 4), 1)
    assert not found.contributions.any()
    assert torch.equal(found.remainder, model.layer.bias.detach()[1].expand(3))
    assert not found.completeness_error.any()


def test_training_flag_of_a_module_in_two_places():
    """Each module's own flag comes back: not by train() on its parents, the last of which would win."""
    shared = nn.Linear(4, 4)
    model = nn.Sequential(nn.Sequential(shared), nn.Sequential(shared), nn.Linear(4, 2)).train()
    shared.eval()
    model[0].eval()
    explain(model, torch.rand(3, 4))
    assert [m.training for m in (model, model[0], model[1], model[2], shared)] == [True, False, True, True, False]


def test_restores_after_a_failure_inside(small):
    model, x = small
    model.train()

    class Broken(nn.Module):
        def forward(self, x):
            raise RuntimeError("inside")

    model.network.append(Broken())
    with pytest.raises(RuntimeError, match="inside"):
        explain(model, x)
    for module in model.modules():
        assert module.training
        assert not module._forward_hooks
        assert not getattr(module, "detach", False)


def test_empty_batch():
    found = explain(nn.Sequential(bnn.BcosConv2d(2, 4, 3), nn.Flatten(), nn.Linear(64, 3)), torch.rand(0, 2, 6, 6))
    assert found.logits.shape == (0, 3)
    assert found.contributions.shape == (0, 2, 6, 6)
    assert found.remainder.shape == found.completeness_error.shape == found.target.shape == (0,)


def test_inside_explanation_mode(small):
    model, x = small
    expected = explain(model, x)
    with explanation_mode(model):
        assert torch.equal(explain(model, x).contributions, expected.contributions)
        assert all(m.detach for m in model.modules() if isinstance(m, bnn.Detachable))


def test_encoding_model_is_attributed_to_its_encoding(small):
    model, x = small
    assert isinstance(model, EncodingModel)
    found = explain(model, x)
    assert torch.equal(found.inputs, torch.cat([x, 1 - x], 1))
    assert found.contributions.shape == (3, 4, 6, 6)
    assert torch.equal(found.contribution_map, found.contributions.sum(1))
    assert torch.equal(found.remainder, torch.full((3,), bnn.LogitLayer.prior_bias(3), dtype=torch.float64))


def test_zero_image():
    model = nn.Sequential(nn.Flatten(), bnn.BcosLinear(8, 4), bnn.BcosLinear(4, 2))
    found = explain(model, torch.zeros(2, 2, 2, 2))
    for field in ("contributions", "remainder", "completeness_error"):
        assert not getattr(found, field).any()


def test_bfloat16(small):
    model, x = small
    found = explain(model.bfloat16(), x.bfloat16())
    assert found.contributions.dtype == torch.bfloat16
    assert (found.completeness_error < 0.05).all()


class VariationalClassifier(nn.Module):
    """Has an encode and a network as encoding models do, and adds to what they answer."""

    def __init__(self):
        super().__init__()
        self.latent, self.network, self.skip = bnn.BcosLinear(6, 4), bnn.BcosLinear(4, 3), bnn.BcosLinear(6, 3)

    def encode(self, x):
        return self.latent(x)

    def forward(self, x):
        return self.network(self.encode(x)) + self.skip(x)


class Autoencoder(nn.Module):
    """Its encode is of another purpose, and takes two."""

    def __init__(self):
        super().__init__()
        self.network = bnn.BcosLinear(6, 3)

    def encode(self, x, noise):
        return x + noise

    def forward(self, x):
        return self.network(2 * x)


@pytest.mark.parametrize("kind", [VariationalClassifier, Autoencoder])
def test_a_model_that_has_the_names_alone_is_explained_as_a_whole(kind):
    torch.manual_seed(0)
    model, x = kind().double(), torch.randn(5, 6, dtype=torch.float64)
    assert isinstance(model, EncodingModel)
    found = explain(model, x)
    torch.testing.assert_close(found.logits, model(x).detach())
    assert torch.equal(found.inputs, x)
    assert found.completeness_error.max() < 1e-12
    assert not [m for m in check_exactness(model, x) if m.breaks]


def test_relative_error_does_not_depend_on_the_scale_of_the_logits():
    """15 % are lost in a function that no rule follows; of logits of 1e-6 the completeness error says 1e-7."""

    class Lossy(nn.Module):
        def __init__(self, scale):
            super().__init__()
            self.scale = scale

        def forward(self, x):
            return x.abs().pow(1 / 0.85) * self.scale  # of degree 1 / 0.85: input times gradient is that much too much

    x = torch.rand(3, 2, dtype=torch.float64) + 0.5
    for scale in (1e-6, 1.0, 1e6):
        found = explain(Lossy(scale), x)
        torch.testing.assert_close(found.relative_error, torch.full((3,), 0.15, dtype=torch.float64))
    assert explain(Lossy(1e-6), x).completeness_error.max() < 1e-6
    model = nn.Sequential(bnn.BcosLinear(2, 3), bnn.LogitLayer(bias=-2.0)).double()
    assert explain(model, x).relative_error.max() < 1e-15
    assert explain(model, torch.zeros(1, 2, dtype=torch.float64)).relative_error == 0


# ---- compiled models ----


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # the compiler's own look
@pytest.mark.parametrize("called_before", [False, True], ids=["fresh", "called"])
@pytest.mark.parametrize("way", ["torch.compile", "model.compile", "a part"])
@pytest.mark.parametrize("kind", ["small", "plain"])
def test_compiled(request, kind, way, called_before):
    torch._dynamo.reset()  # it counts compilations of nn.Sequential over the whole session
    model, x = request.getfixturevalue(kind)
    expected = explain(model, x)
    compiled = model
    if way == "torch.compile":
        compiled = torch.compile(model, backend="eager")
    elif way == "model.compile":
        model.compile(backend="eager")
    else:
        parts = model.network if kind == "small" else model
        parts[0] = torch.compile(parts[0], backend="eager")
    if called_before:
        compiled(x.clone().requires_grad_())
    found = explain(compiled, x)
    torch.testing.assert_close(found.contributions, expected.contributions)
    torch.testing.assert_close(found.remainder, expected.remainder)
    assert (found.completeness_error <= 1e-12).all()
    assert torch.equal(compiled(x.clone()), model(x.clone()))


# ---- pictures ----


def test_to_rgba():
    model = nn.Sequential(bnn.InverseEncoding(), nn.Flatten(), bnn.BcosLinear(6 * 16, 2))
    x = torch.rand(2, 3, 4, 4)
    encoded = bnn.InverseEncoding()(x)
    found = explain(model[1:], encoded)
    picture = found.to_rgba(smooth=3, percentile=90)
    assert picture.shape == (2, 4, 4, 4)
    assert torch.equal(picture, render_rgba(found.weights, found.contributions, smooth=3, percentile=90))


def test_to_rgba_of_a_plain_network_says_what_to_do():
    x = torch.rand(1, 3, 4, 4)
    found = explain(nn.Sequential(nn.Flatten(), nn.Linear(48, 2)), x)
    with pytest.raises(ValueError, match="For a plain network draw the contribution map instead"):
        found.to_rgba()


def test_products_are_exact_inside_and_as_before_outside():
    backends = (torch.backends.cudnn.conv, torch.backends.cuda.matmul)
    before = [b.fp32_precision for b in backends]
    seen = []

    class Watching(nn.Module):
        def forward(self, x):
            seen.append([b.fp32_precision for b in backends])
            return x.flatten(1)

    explain(Watching(), torch.rand(2, 3))
    assert seen == [["ieee", "ieee"]]
    assert [b.fp32_precision for b in backends] == before


def test_threads_do_not_mix_their_explanations():
    model = nn.Sequential(nn.Flatten(), bnn.BcosLinear(192, 16), nn.ReLU(inplace=True), bnn.BcosLinear(16, 5)).double()
    x = torch.rand(4, 3, 8, 8, dtype=torch.float64)
    expected = explain(model, x)
    found, errors = [], []

    def run():
        try:
            found.extend(explain(model, x) for _ in range(20))
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(found) == 80
    for explanation in found:
        torch.testing.assert_close(explanation.contributions, expected.contributions, rtol=1e-12, atol=1e-12)
        assert explanation.completeness_error.max() < 1e-12
    assert model.training
    assert not any(module.detach for module in model if isinstance(module, bnn.BcosLinear))
