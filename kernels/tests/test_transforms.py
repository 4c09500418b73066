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
def test_forward_mode_says_that_there_is_none(network, x):
    """A silent zero would be the alternative."""
    function = lambda x: bcos_kernels.conv2d(x, network.filters.detach())  # noqa: E731
    for attempt in (lambda: jacfwd(function)(x), lambda: torch.func.jvp(function, (x,), (x,))):
        with pytest.raises(NotImplementedError, match="jvp"):
            attempt()
    with forward_ad.dual_level(), pytest.raises(NotImplementedError, match="jvp"):
        function(forward_ad.make_dual(x, x))


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
