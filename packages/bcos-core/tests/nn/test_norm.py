"""Norms against their plain formulas, written with means of squares in float64."""

import pytest
import torch
from bcos_core.nn import (
    BatchNorm2d,
    BatchNormUncentered2d,
    Detachable,
    GroupNorm2d,
    GroupNormUncentered2d,
    InstanceNorm2d,
    InstanceNormUncentered2d,
    LayerNorm2d,
    LayerNormUncentered2d,
    PositionNorm2d,
    PositionNormUncentered2d,
)

EPS = 1e-5


def spread(x, dims):
    """Variance about the mean by E[x²] - E[x]², kept."""
    return x.square().mean(dims, keepdim=True) - x.mean(dims, keepdim=True).square()


def group_spread(x, groups):
    parts = x.unflatten(1, (groups, x.shape[1] // groups))
    return spread(parts, (2, 3, 4)).expand(-1, -1, parts.shape[2], -1, -1).flatten(1, 2)


UNCENTRED = {
    "batch": (BatchNormUncentered2d, (), lambda x: spread(x, (0, 2, 3))),
    "group": (GroupNormUncentered2d, (2,), lambda x: group_spread(x, 2)),
    "layer": (LayerNormUncentered2d, (), lambda x: spread(x, (1, 2, 3))),
    "instance": (InstanceNormUncentered2d, (), lambda x: spread(x, (2, 3))),
    "position": (PositionNormUncentered2d, (), lambda x: spread(x, (1,))),
}


@pytest.fixture(params=UNCENTRED.values(), ids=UNCENTRED)
def norm(request):
    """A function that builds the norm of 6 channels, and its variance's formula."""
    kind, first, variance = request.param
    return lambda **options: kind(*first, 6, **options), variance


def random_affine(layer):
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return layer


@pytest.fixture
def x():
    return 2 * torch.randn(3, 6, 5, 4, dtype=torch.float64) + torch.arange(6).view(-1, 1, 1)


@pytest.mark.parametrize("bias", [False, True], ids=["", "bias"])
def test_training(norm, x, bias, assert_close):
    build, variance = norm
    layer = random_affine(build(bias=bias).double())
    expected = layer.weight.view(-1, 1, 1) * x / (variance(x) + EPS).sqrt()
    if bias:
        expected = expected + layer.bias.view(-1, 1, 1)
    assert_close(layer(x), expected)


def test_without_affine(norm, x, assert_close):
    build, variance = norm
    layer = build(affine=False, eps=0.1).double()
    assert not list(layer.parameters())
    assert_close(layer(x), x / (variance(x) + 0.1).sqrt())


def test_evaluation(norm, x, assert_close):
    build, variance = norm
    layer = random_affine(build().double()).eval()
    if isinstance(layer, BatchNormUncentered2d):
        layer.running_var.copy_(torch.rand(6) + 0.5)
        expected = x / (layer.running_var.view(1, -1, 1, 1) + EPS).sqrt()
    else:  # statistics of each image: no difference
        expected = x / (variance(x) + EPS).sqrt()
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    assert_close(layer(x), layer.weight.view(-1, 1, 1) * expected)
    for name, value in layer.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_one_image_does_not_see_the_others(norm, x, training):
    layer = norm[0]().double().train(training)
    alone = torch.cat([layer(image[None]) for image in x])
    apart = not (isinstance(layer, BatchNormUncentered2d) and training)
    assert torch.allclose(layer(x), alone) == apart


def test_running_variance(x):
    """A share ``momentum`` of each batch's biased variance, as in the public B-cos code."""
    layer = BatchNormUncentered2d(6, momentum=0.3).double()
    expected = torch.ones(6).double()
    for step in range(3):
        batch = x * (step + 1)
        layer(batch)
        expected = 0.7 * expected + 0.3 * spread(batch, (0, 2, 3)).flatten()
    torch.testing.assert_close(layer.running_var, expected)
    assert layer.num_batches_tracked == 3
    assert not layer.running_var.requires_grad


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_half_precision_input(norm, x, dtype, training, assert_close):
    """float32 parameters, statistics in float32, result in the input's dtype."""
    build, variance = norm
    layer, x = build().train(training), x.to(dtype)
    y = layer(x)
    assert y.dtype == dtype
    batch_eval = isinstance(layer, BatchNormUncentered2d) and not training
    var = torch.ones(()) if batch_eval else variance(x.double())
    assert_close(y, x.double() / (var + EPS).sqrt(), tolerance=0.01)


def test_half_precision_statistics_do_not_overflow(norm):
    x = 300 * torch.randn(2, 6, 4, 4)
    assert norm[0]()(x.half()).isfinite().all()  # squares reach beyond float16's range


def test_half_precision_under_autocast(norm, x):
    with torch.autocast("cpu", torch.bfloat16):
        y = norm[0](bias=True)(x.bfloat16())
    assert y.dtype == torch.bfloat16
    assert y.isfinite().all()


@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
def test_detached_gradient_is_that_of_a_constant_variance(norm, x, training, assert_close):
    layer = random_affine(norm[0]().double()).train(training)
    layer.detach = True
    x.requires_grad_()
    y = layer(x)
    grad = torch.randn_like(y)
    (found,) = torch.autograd.grad(y, x, grad)
    assert_close(found, grad * (y / x).detach(), tolerance=1e-10)
    torch.testing.assert_close((found * x).sum(), (y * grad).sum())


def test_attached_gradient(norm, x):
    layer = random_affine(norm[0]().double())
    assert torch.autograd.gradcheck(layer, x[:2, :, :2, :2].clone().requires_grad_())


def test_detach_does_not_change_values(norm, x):
    layer = norm[0]().double()
    expected = layer(x)
    layer.detach = True
    assert torch.equal(layer(x), expected)


def test_constant_input_is_finite(norm):
    x = torch.zeros(2, 6, 3, 3, requires_grad=True)
    y = norm[0]()(x)
    assert (y == 0).all()
    y.sum().backward()
    assert x.grad.isfinite().all()


def test_no_bias_by_default(norm):
    layer = norm[0]()
    assert isinstance(layer, Detachable)
    assert layer.bias is None
    assert [name for name, _ in layer.named_parameters()] == ["weight"]
    assert torch.equal(layer.weight, torch.ones(6))
    expected = {"weight"}
    if isinstance(layer, BatchNormUncentered2d):
        expected |= {"running_var", "num_batches_tracked"}
    assert set(layer.state_dict()) == expected


def test_repr(norm):
    layer = norm[0]()
    groups = f"{layer.num_groups}, " if hasattr(layer, "num_groups") else ""
    assert repr(layer).endswith(f"Uncentered2d({groups}6, eps=1e-05, affine=True, bias=False)")


def test_bias_needs_affine(norm):
    with pytest.raises(ValueError, match="bias: expected affine=True with bias=True"):
        norm[0](affine=False, bias=True)


@pytest.mark.parametrize("kind", [BatchNormUncentered2d, LayerNormUncentered2d, PositionNormUncentered2d])
def test_num_channels(kind):
    with pytest.raises(ValueError, match="num_channels: expected at least 1, got 0"):
        kind(0)


@pytest.mark.parametrize("groups", [0, 4])
def test_num_groups(groups):
    with pytest.raises(ValueError, match=f"num_groups: expected a divisor of 6 channels, got {groups}"):
        GroupNormUncentered2d(groups, 6)


CENTRED = {
    "group": (GroupNorm2d, (2,), lambda x: (x.unflatten(1, (2, 3)), (2, 3, 4))),
    "layer": (LayerNorm2d, (), lambda x: (x, (1, 2, 3))),
    "instance": (InstanceNorm2d, (), lambda x: (x, (2, 3))),
    "position": (PositionNorm2d, (), lambda x: (x, (1,))),
}


@pytest.mark.parametrize("detach", [False, True], ids=["", "detach"])
@pytest.mark.parametrize("bias", [False, True], ids=["", "bias"])
@pytest.mark.parametrize(("kind", "first", "view"), CENTRED.values(), ids=CENTRED)
class TestCentred:
    """x less its mean, over the standard deviation: two ways to compute it, one for training, one for explaining."""

    def test_values_and_gradient(self, kind, first, view, bias, detach, x, assert_close):
        layer = random_affine(kind(*first, 6, bias=bias).double())
        layer.detach = detach
        for layout in (torch.contiguous_format, torch.channels_last):
            x = x.detach().contiguous(memory_format=layout).requires_grad_()
            parts, dims = view(x)
            var = spread(parts, dims)
            var = var.detach() if detach else var
            expected = ((parts - parts.mean(dims, keepdim=True)) / (var + EPS).sqrt()).reshape(x.shape)
            expected = expected * layer.weight.view(-1, 1, 1) + (layer.bias.view(-1, 1, 1) if bias else 0)
            y, grad = layer(x), torch.randn_like(x)
            assert_close(y, expected)
            assert_close(*(torch.autograd.grad(value, x, grad)[0] for value in (y, expected)), tolerance=1e-11)

    def test_half_precision(self, kind, first, view, bias, detach, x, assert_close):
        layer = kind(*first, 6, bias=bias)
        layer.detach = detach
        with torch.autocast("cpu", torch.bfloat16):
            y = layer(x.bfloat16())
        parts, dims = view(x.bfloat16().double())
        expected = (parts - parts.mean(dims, keepdim=True)) / (spread(parts, dims) + EPS).sqrt()
        assert_close(y.bfloat16(), expected.reshape(x.shape), tolerance=0.02)


class TestBatchNorm2d:
    """Centred: torch's own, with bias=None."""

    def test_equals_torchs(self, x):
        ours, torchs = BatchNorm2d(6, eps=1e-3, momentum=0.2).double(), torch.nn.BatchNorm2d(6, 1e-3, 0.2).double()
        random_affine(ours)
        torchs.weight.data = ours.weight.detach().clone()
        for _ in range(2):
            torch.testing.assert_close(ours(x), torchs(x))
        assert torch.equal(ours.running_mean, torchs.running_mean)
        assert torch.equal(ours.running_var, torchs.running_var)
        ours.eval(), torchs.eval()
        torch.testing.assert_close(ours(x), torchs(x))

    def test_state(self):
        assert BatchNorm2d(6).bias is None
        assert set(BatchNorm2d(6).state_dict()) == {"weight", "running_mean", "running_var", "num_batches_tracked"}
        assert "bias" in BatchNorm2d(6, bias=True).state_dict()
        assert BatchNorm2d(6, affine=False).weight is None

    def test_bias(self, x):
        layer = random_affine(BatchNorm2d(6, bias=True).double()).eval()
        zero = layer(torch.zeros_like(x))
        torch.testing.assert_close(zero, layer.bias.view(-1, 1, 1).expand_as(zero))

    def test_reset(self):
        layer = random_affine(BatchNorm2d(6))
        layer.reset_parameters()
        assert torch.equal(layer.weight, torch.ones(6))
        assert layer.bias is None

    def test_bias_needs_affine(self):
        with pytest.raises(ValueError, match="bias: expected affine=True with bias=True"):
            BatchNorm2d(6, affine=False, bias=True)
