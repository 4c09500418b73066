"""What torch.func, forward-mode derivatives and counters make of the layers."""

import bcos_kernels
import pytest
import torch
import torch.nn.functional as F
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jacfwd, jacrev, vmap
from torch.utils.flop_counter import FlopCounterMode


class Network(torch.nn.Module):
    """A convolution with MaxOut and a linear layer, of which B is trained too."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)

        def draw(*shape):
            return torch.nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64))

        self.filters, self.matrix = draw(6, 2, 3, 3), draw(4, 27)
        self.b = torch.nn.Parameter(torch.tensor([1.2, 1.7, 2.0, 2.6], dtype=torch.float64))

    def forward(self, x):
        y = bcos_kernels.conv2d(x, self.filters, max_out=2)
        return bcos_kernels.linear(y.flatten(1), self.matrix, b=self.b)


@pytest.fixture
def network():
    return Network()


@pytest.fixture
def x():
    return torch.randn(3, 2, 5, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def loss(network, parameters, x):
    return functional_call(network, parameters, (x[None],)).square().sum()


def detached(network):
    return {name: p.detach() for name, p in network.named_parameters()}


def test_gradients_per_example(network, x):
    found = vmap(grad(lambda p, x: loss(network, p, x)), (None, 0))(detached(network), x)
    for i, example in enumerate(x):
        expected = torch.autograd.grad(network(example[None]).square().sum(), network.parameters())
        for name, value in zip(found, expected, strict=True):
            torch.testing.assert_close(found[name][i], value)


@pytest.mark.parametrize(
    "transform",  # not one inside the other: Dynamo (torch 2.15) has no rule for autograd functions there
    [
        lambda f: grad(lambda x: f(x).square().sum()),
        lambda f: lambda x: vmap(lambda e: f(e[None]))(x),
    ],
    ids=["grad", "vmap"],
)
def test_compiled_transforms(network, x, transform):
    weight = network.filters.detach()
    function = transform(lambda x: bcos_kernels.conv2d(x, weight, max_out=2, b=1.5))
    torch.testing.assert_close(torch.compile(function, fullgraph=True, backend="aot_eager")(x), function(x))


def test_nested_maps(network, x):
    gradient = grad(lambda x: loss(network, detached(network), x))
    found = vmap(vmap(gradient))(torch.stack([x, 2 * x]))
    torch.testing.assert_close(found, torch.stack([torch.stack([gradient(e) for e in s]) for s in (x, 2 * x)]))


def test_second_derivatives(network, x):
    x = x[:1, :, :3, :3]
    weight = network.filters.detach()

    def energy(x):
        return bcos_kernels.conv2d(x, weight, max_out=2).square().sum()

    found = jacrev(grad(energy))(x)
    torch.testing.assert_close(found, torch.autograd.functional.hessian(energy, x))
    step = 1e-5  # and neither is zero
    direction = torch.ones_like(x)
    differences = (grad(energy)(x + step * direction) - grad(energy)(x - step * direction)) / (2 * step)
    torch.testing.assert_close(found.flatten(4).sum(4), differences, rtol=1e-6, atol=1e-6)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")  # torch's own, in its first jvp
@pytest.mark.parametrize("detach", [False, True], ids=["whole", "detached"])
@pytest.mark.parametrize(
    "options",
    [{"b": 1}, {}, {"b": 2.5}, {"b": torch.tensor([1.5, 2.0, 2.5], dtype=torch.float64), "max_out": 2}, {"groups": 2}],
    ids=["1", "2", "2.5", "tensor, MaxOut", "groups"],
)
def test_forward_mode_is_reverse_mode(x, options, detach):
    """Of x, the filters and B; a filter of zeros has no derivative in either."""
    generator = torch.Generator().manual_seed(2)
    weight = torch.randn(6, 2 // options.get("groups", 1), 3, 3, generator=generator, dtype=torch.float64)
    weight[1] = 0
    options = {"padding": (1, 0), "stride": (2, 1), "detach": detach, **options}
    b = options.pop("b", 2.0)

    def function(x, weight, b=b):
        return bcos_kernels.conv2d(x, weight, b=b, **options)

    for argument in (0, 1, 2) if isinstance(b, torch.Tensor) else (0, 1):
        arguments = (x, weight, b) if isinstance(b, torch.Tensor) else (x, weight)
        found = jacfwd(function, argument)(*arguments)
        torch.testing.assert_close(found, jacrev(function, argument)(*arguments))
        assert found.any()


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")
def test_forward_mode_of_a_network(network, x):
    """Along a direction, against differences; by dual numbers, by torch.func, mapped, and with gradients of it."""
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(3), dtype=x.dtype)
    step = 1e-6
    differences = (network(x + step * direction) - network(x - step * direction)) / (2 * step)
    value, found = torch.func.jvp(network, (x,), (direction,))
    torch.testing.assert_close(value, network(x))
    torch.testing.assert_close(found, differences, rtol=1e-6, atol=1e-8)
    with forward_ad.dual_level():
        dual = forward_ad.unpack_dual(network(forward_ad.make_dual(x, direction)))
    torch.testing.assert_close(dual.tangent, found)
    mapped = vmap(lambda x, d: torch.func.jvp(network, (x[None],), (d[None],))[1][0])(x, direction)
    torch.testing.assert_close(mapped, found)

    def energy(x):
        return network(x).square().sum()

    both = torch.func.jvp(grad(energy), (x,), (direction,))[1]  # forward over reverse
    torch.testing.assert_close(both, torch.autograd.functional.vhp(energy, x, direction)[1])


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:FutureWarning")
def test_forward_mode_under_autocast_rounds_as_the_layer_does():
    x, weight = torch.randn(2, 8), torch.randn(4, 8)
    with torch.autocast("cpu", torch.bfloat16):
        value, tangent = torch.func.jvp(lambda x: bcos_kernels.linear(x, weight), (x,), (x,))
        expected = bcos_kernels.linear(x, weight)
    assert value.dtype == tangent.dtype == expected.dtype == torch.bfloat16
    scale = float(expected.abs().max())
    torch.testing.assert_close(value, expected, rtol=0, atol=0.02 * scale)  # a GPU's operators round filters too
    torch.testing.assert_close(tangent, value)  # of degree one: along x it is y itself


@pytest.mark.parametrize("needs", [(True, True), (True, False), (False, True)], ids=["both", "input", "filters"])
@pytest.mark.parametrize("kind", ["conv2d", "linear"])
def test_flops_of_a_training_step_are_those_of_the_products(kind, needs):
    shapes = {"conv2d": ((2, 4, 7, 6), (6, 4, 3, 3)), "linear": ((5, 8), (6, 8))}[kind]
    options = {"stride": (2, 1), "padding": (1, 0)} if kind == "conv2d" else {}
    counts = []
    for function in (getattr(bcos_kernels, kind), getattr(F, kind)):
        tensors = [torch.randn(s, requires_grad=need) for s, need in zip(shapes, needs, strict=True)]
        with FlopCounterMode(display=False) as counter:
            function(*tensors, **options).sum().backward()
        counts.append(counter.get_total_flops())
    assert counts[0] == counts[1] > 0
