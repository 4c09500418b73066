"""Every family of networks: a training step, files, completeness; standard ones are torchvision's to the last bit."""

import bcos_core
import pytest
import torch
import torchvision
from bcos_core.nn import BcosConv2d
from bcos_core.run.error import InputError
from bcos_vision import create_model, list_models
from bcos_vision.models.convnext import ConvNeXt
from bcos_vision.models.densenet import DenseNet
from bcos_vision.models.resnet import BasicBlock, Bottleneck, ResNet
from bcos_vision.models.variant import NORMS, Layers
from bcos_vision.models.vgg import VGG
from bcos_vision.models.vit import VisionTransformer
from torch import nn
from torchvision.models.feature_extraction import create_feature_extractor

VARIANTS = ("bcos", "baseline", "standard")
# each with all that its family has, in the smallest size
SMALL = {
    "basic blocks": lambda *a: ResNet(*a, block=BasicBlock, blocks=(1, 2), width=8, small=False),
    "bottlenecks, groups": lambda *a: ResNet(
        *a, block=Bottleneck, blocks=(1, 2), width=8, groups=4, group_width=16, small=True
    ),
    "dense blocks": lambda *a: DenseNet(*a, blocks=(2, 2), growth=4, small=False),
    "dense blocks, small images": lambda *a: DenseNet(*a, blocks=(2, 1), growth=4, small=True),
    "vgg": lambda *a: VGG(*a, convs=(1, 2), small=True),
    "convnext": lambda *a: ConvNeXt(*a, blocks=(1, 2), width=8, drop=0.1, small=False),
    "convnext, small images": lambda *a: ConvNeXt(*a, blocks=(1, 2), width=8, drop=0.1, small=True),
    "transformer": lambda *a: VisionTransformer(*a, dim=16, depth=2, heads=2, patch=4),
    "transformer, stem": lambda *a: VisionTransformer(
        *a, dim=16, depth=2, heads=2, patch=1, stem=(8, 8, 16), halvings=2
    ),
}


@pytest.mark.parametrize(
    ("variant", "norm"), [*((v, None) for v in VARIANTS), *(("bcos", n) for n in NORMS), ("standard", "instance")]
)
@pytest.mark.parametrize("family", SMALL)
def test_every_family_trains_a_step_and_explains_completely(family, variant, norm, trained):
    torch.manual_seed(0)
    layers = Layers(variant, norm_name=norm)
    channels = 6 if layers.is_bcos else 3
    network = SMALL[family](layers, channels, 5)
    encoded = torch.rand(4, channels, 16, 16)
    loss = nn.functional.binary_cross_entropy_with_logits(network(encoded), torch.eye(5)[:4])
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    explanation = bcos_core.explain(trained(network.double(), encoded.double()), encoded.double())
    assert explanation.completeness_error.max() <= 1e-12
    assert (explanation.contributions != 0).any((1, 2, 3)).all()
    if layers.is_bcos:
        assert bcos_core.explain(network.float(), encoded).completeness_error.max() <= 1e-5


@pytest.mark.parametrize("name", list_models())
def test_every_name_saves_and_loads(name, tmp_path):
    """Shapes alone: the weights of some would take seconds to draw."""
    with torch.device("meta"):
        for variant in VARIANTS:
            for stem in (None, "cifar"):
                model = create_model(name, num_classes=5, variant=variant, stem=stem)
                again = create_model(**{k: v for k, v in model.description.items() if k not in ("mean", "std")})
                shapes = {n: v.shape for n, v in model.state_dict().items()}
                assert {n: v.shape for n, v in again.state_dict().items()} == shapes
                assert model.description["name"] == name


@pytest.mark.parametrize(
    ("name", "norm", "published"),
    [
        ("resnet18", None, torchvision.models.resnet18),
        ("resnet50", None, torchvision.models.resnet50),
        ("resnext50_32x4d", None, torchvision.models.resnext50_32x4d),
        ("densenet121", None, torchvision.models.densenet121),
        ("vgg11", None, torchvision.models.vgg11),
        ("vgg11", "batch", torchvision.models.vgg11_bn),
        ("convnext_tiny", None, torchvision.models.convnext_tiny),
    ],
    ids=lambda v: getattr(v, "__name__", str(v or "")),
)
def test_standard_networks_load_torchvisions_files(name, norm, published, trained, tmp_path):
    torch.manual_seed(0)
    with torch.device("meta"):
        oracle = published(num_classes=7)
    oracle.to_empty(device="cpu")
    with torch.no_grad():
        for tensor in (*oracle.parameters(), *oracle.buffers()):
            if tensor.is_floating_point():
                tensor.normal_(0, (2 / max(1, tensor[0].numel())) ** 0.5 if tensor.dim() > 1 else 0.1)
        for module in oracle.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.uniform_(0.5, 1.5)
                module.running_var.uniform_(0.5, 1.5)
    torch.save(oracle.state_dict(), tmp_path / "published.pth")
    model = create_model(name, num_classes=7, variant="standard", norm=norm, weights=tmp_path / "published.pth")
    images = torch.rand(2, 3, 64, 64)
    standardised = torchvision.transforms.functional.normalize(images, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    with torch.no_grad():
        expected, found = oracle.eval()(standardised), model.eval()(images)
    assert expected.std() > 1e-3
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


def test_densenet_files_of_an_old_pytorch(tmp_path):
    """With dots in names, and from before batches were counted."""
    state = create_model("densenet121", num_classes=2, variant="standard").network.state_dict()
    old = {n.replace("norm1.", "norm.1.").replace("conv1.", "conv.1."): v for n, v in state.items()}
    old = {n.replace("norm2.", "norm.2.").replace("conv2.", "conv.2."): v for n, v in old.items()}
    old = {n: v for n, v in old.items() if not n.endswith("num_batches_tracked")}
    torch.save(old, tmp_path / "old.pth")
    model = create_model("densenet121", num_classes=2, variant="standard", weights=tmp_path / "old.pth")
    assert all(torch.equal(v, state[n]) for n, v in model.network.state_dict().items())


@pytest.mark.parametrize("name", ["resnet20", "densenet121", "vgg11_bnu", "convnext_tiny"])
def test_torchvision_extracts_features_of_convolutional_networks(name):
    """By tracing: each B-cos layer is one node of the graph."""
    model = create_model(name, num_classes=2, stem=None if name == "resnet20" else "cifar").eval()
    last = next(reversed([path for path, m in model.named_modules() if isinstance(m, BcosConv2d)]))
    node = f"{last}.bcos_conv2d"
    extractor = create_feature_extractor(model, {node: "map"}, suppress_diff_warning=True)
    seen = []
    model.get_submodule(last).register_forward_hook(lambda *a: seen.append(a[-1]))
    images = torch.rand(2, 3, 32, 32)
    model(images)
    assert torch.equal(extractor(images)["map"], seen[0])


def test_transformers_say_which_sizes_they_take():
    with pytest.raises(InputError, match=r"sides that are multiples of 16 pixels, got 30x32"):
        create_model("simple_vit_ti_patch16_224")(torch.rand(1, 3, 30, 32))
    assert create_model("vitc_ti_patch1_14", num_classes=2)(torch.rand(1, 3, 16, 48)).shape == (1, 2)


def test_standard_vgg_is_bnu_only_where_asked():
    kinds = {type(m).__name__ for m in create_model("vgg11", stem="cifar", variant="standard").modules()}
    assert not [k for k in kinds if "Norm" in k]
    assert "BatchNormUncentered2d" in {type(m).__name__ for m in create_model("vgg11", stem="cifar").modules()}
