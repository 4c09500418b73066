import copy

import captum.attr
import pytest
import torch
import torch.nn.functional as F
from bcos_eval.attribution import create_attributor, preflight
from bcos_vision import create_model
from torch import nn


class Reused(nn.Module):
    """What DeepLIFT trips on, all of it."""

    def __init__(self, relu):
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(c, 4, 3, padding=1) for c in (1, 4, 4, 4))
        self.relu = nn.ReLU(inplace=True)
        self.functional = relu
        self.fc = nn.Linear(4 * 4, 3)

    def forward(self, x):
        x = self.relu(self.convs[0](x))
        x = self.relu(self.convs[1](x))
        x = F.max_pool2d(self.functional(self.convs[2](x)), 3, stride=2, padding=1)
        x = F.max_pool2d(F.relu(self.convs[3](x), inplace=True), (2, 2))
        return self.fc(x.flatten(1))


RELUS = {"F.relu": F.relu, "torch.relu": torch.relu, "method": lambda x: x.relu(), "in place": lambda x: x.relu_()}


@pytest.mark.parametrize("relu", RELUS)
def test_repairs_and_then_deeplift_adds_up(relu, images, target):
    model = Reused(RELUS[relu]).eval().double()
    images = images.double()
    with torch.no_grad():
        found, report = preflight(model, images)
        assert torch.equal(found(images), model(images))
    assert report.unrepaired == ()
    assert "1 module works out of place" in report.repaired
    assert "1 was used more than once: a module for each use" in report.repaired
    assert "2 calls of max_pool2d made modules" in report.repaired
    assert "windows of 1 pooling laid side by side" in report.repaired
    assert sum(type(m) is nn.ReLU for m in found.modules()) == 4
    assert float(create_attributor("deeplift", model).attribute(images, target).residual.max()) < 1e-12
    assert type(model.convs[0]) is nn.Conv2d
    assert model.relu.inplace
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())


def test_captum_alone_does_not_add_up():
    """The reasons for preflight: when captum mends one, this fails, and the repair may go."""
    x, target = torch.rand(1, 1, 8, 8, dtype=torch.double, requires_grad=True), 1
    relu = nn.ReLU()
    reused = nn.Sequential(nn.Conv2d(1, 2, 3), relu, nn.Conv2d(2, 2, 3), relu, nn.Flatten(), nn.Linear(32, 2)).double()
    with pytest.raises(RuntimeError, match="used more than once"), pytest.warns(UserWarning, match="Setting forward"):
        captum.attr.DeepLift(reused).attribute(x, target=target)
    conv, head = nn.Conv2d(1, 2, 3, padding=1), (nn.Flatten(), nn.Linear(32, 2))
    touching = nn.Sequential(conv, nn.ReLU(), nn.MaxPool2d(2), *head).double()
    overlapping = nn.Sequential(conv, nn.Identity(), nn.MaxPool2d(3, 2, 1), *head).double()
    for network in (touching, overlapping):
        deltas = []
        for repaired in (network, preflight(network, x)[0]):
            with pytest.warns(UserWarning, match="Setting forward"):
                _, delta = captum.attr.DeepLift(repaired).attribute(
                    x, baselines=torch.rand(1, 1, 8, 8).double(), target=target, return_convergence_delta=True
                )
            deltas.append(abs(float(delta.detach())))
        assert deltas[0] > 1e-4
        assert deltas[1] < 1e-12


@pytest.mark.parametrize(
    "pool",
    [nn.MaxPool2d(3, 2, 1), nn.MaxPool2d(3, 2, ceil_mode=True), nn.MaxPool2d((3, 2), (1, 2), (1, 0)), nn.MaxPool2d(2)],
    ids=str,
)
@pytest.mark.parametrize("size", [(8, 8), (7, 10)])
def test_windows_side_by_side(pool, size):
    x = torch.randn(2, 3, *size, requires_grad=True)
    found, _ = preflight(nn.Sequential(pool), x)
    assert torch.equal(found(x), pool(x))
    expected, got = (torch.autograd.grad(m(x).square().sum(), x)[0] for m in (pool, found))
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("variant", ["bcos", "baseline", "standard"])
@pytest.mark.parametrize("name", ["resnet20", "simple_vit_ti_patch16_224"])
def test_our_networks_give_the_same_logits(name, variant):
    model = create_model(name, num_classes=10, variant=variant, stem="cifar").eval()
    encoded = model.encode(torch.rand(2, 3, 16, 16))
    found, report = preflight(model.network, encoded)
    assert report.unrepaired == ()
    assert torch.equal(found(encoded), model.network(encoded))
    kept = " ".join(report.kept)
    assert ("BcosConv2d" in kept or "BcosLinear" in kept) == (variant == "bcos")
    assert ("gelu" in kept) == (name != "resnet20" and variant != "bcos")


def test_what_cannot_be_repaired():
    class UsedAgain(nn.Module):
        def forward(self, x):
            return F.relu(x, inplace=True).flatten(1) + x.flatten(1)

    x = torch.randn(1, 1, 8, 8)
    original = copy.deepcopy(x)

    class Untraceable(nn.Module):
        def forward(self, x):
            return F.relu(x).flatten(1) if x.shape[0] > 0 else x

    _, report = preflight(Untraceable(), x)
    assert any(line.startswith("torch.fx cannot trace it (TraceError") for line in report.unrepaired)
    assert "relu is a function, 1 times" in report.unrepaired

    class Outer(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.inner = nn.Conv2d(1, 1, 1), UsedAgain()

        def forward(self, x):
            return self.inner(self.conv(x))

    _, report = preflight(Outer().eval(), x)
    assert report.unrepaired == ("what works in place changes values that are used again",)
    assert torch.equal(x, original)


def test_hooks_do_not_stay_after_an_exception(plain, images):
    class Fails(nn.Module):
        def forward(self, x):
            raise RuntimeError("no")

    network = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU(), Fails())
    with pytest.raises(RuntimeError, match="no"):
        preflight(network, images)
    assert not any(m._forward_pre_hooks or m._forward_hooks or m._backward_hooks for m in network.modules())
