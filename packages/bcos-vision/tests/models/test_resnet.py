"""CIFAR ResNets against torchvision's blocks and the published sizes; norms and exponents."""

import bcos_core
import pytest
import torch
from bcos_core.nn import BatchNorm2d, BatchNormUncentered2d, BcosConv2d
from bcos_vision import create_model
from bcos_vision.models.variant import NORMS
from torch import nn
from torchvision.models.resnet import BasicBlock

VARIANTS = ("bcos", "baseline", "standard")


@pytest.mark.parametrize("norm", list(NORMS))
@pytest.mark.parametrize("options", [{"b": 1.0}, {"b": 1.5}, {"b": 2.5, "max_out": 2}])
def test_every_norm_and_exponent_explains_completely(norm, options, trained):
    torch.manual_seed(0)
    images = torch.rand(2, 1, 8, 8, dtype=torch.float64)
    model = trained(create_model("resnet20", num_classes=4, in_channels=1, norm=norm, **options), images.float())
    assert bcos_core.explain(model.float(), images.float()).completeness_error.max() <= 1e-5
    assert bcos_core.explain(model.double(), images).completeness_error.max() <= 1e-12


def test_standard_network_equals_one_of_torchvisions_blocks(trained):
    torch.manual_seed(0)
    images = torch.rand(4, 3, 32, 32, dtype=torch.float64)
    model = trained(create_model("resnet20", num_classes=10, variant="standard").double(), images)
    blocks = []
    channels = 16
    for stage in range(3):
        for k in range(3):
            out = 16 * 2**stage
            stride = 2 if stage and not k else 1
            shortcut = None
            if stride == 2:
                shortcut = nn.Sequential(nn.Conv2d(channels, out, 1, 2, bias=False), nn.BatchNorm2d(out))
            blocks.append(BasicBlock(channels, out, stride, shortcut))
            channels = out
    stem = [nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU()]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10)]
    oracle = nn.Sequential(*stem, *blocks, *head).double().eval()
    own = list(model.network.state_dict().values())
    assert [v.shape for v in own] == [v.shape for v in oracle.state_dict().values()]
    oracle.load_state_dict(dict(zip(oracle.state_dict(), own, strict=True)))
    standardised = (images - model.encoding.mean) / model.encoding.std
    torch.testing.assert_close(model(images), oracle(standardised), rtol=1e-12, atol=1e-12)


# parameters of convolutions and norms counted by hand: 3x3 stem, n blocks of two 3x3 a stage, 1x1 shortcuts, classifier
@pytest.mark.parametrize(("name", "n"), [("resnet20", 3), ("resnet56", 9), ("resnet110", 18)])
def test_sizes_are_those_of_the_paper(name, n):
    convs = 9 * 3 * 16 + sum(
        9 * w * w * (2 * n - (s > 0)) + (9 * w * w // 2 + w * w // 2 if s else 0) for s, w in enumerate((16, 32, 64))
    )
    norms = 2 * (16 + sum(w * (2 * n + (s > 0)) for s, w in enumerate((16, 32, 64))))
    model = create_model(name, num_classes=10, variant="standard")
    assert sum(p.numel() for p in model.parameters()) == convs + norms + 64 * 10 + 10


def test_variants_differ_only_in_their_layers():
    kinds = {v: [type(m) for m in create_model("resnet20", variant=v).network.modules()] for v in VARIANTS}
    assert kinds["bcos"].count(BcosConv2d) == kinds["baseline"].count(nn.Conv2d) == 22
    assert kinds["baseline"].count(BatchNorm2d) == kinds["bcos"].count(BatchNormUncentered2d) == 21
    for variant in ("bcos", "baseline"):
        names = [n for n, _ in create_model("resnet20", variant=variant).named_parameters()]
        assert not [n for n in names if n.endswith("bias")]
    assert nn.ReLU not in kinds["bcos"]


def test_encode_and_network_make_the_model():
    model = create_model("resnet20", num_classes=3).eval()
    images = torch.rand(2, 3, 8, 8)
    torch.testing.assert_close(model.encode(images), torch.cat([images, 1 - images], 1))
    torch.testing.assert_close(model(images), model.network(model.encode(images)), rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"images: expected shape \(N, 3, H, W\), got \(2, 1, 8, 8\)"):
        model(images[:, :1])
