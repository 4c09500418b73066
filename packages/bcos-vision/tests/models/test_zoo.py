"""Every family of networks: a training step, files, completeness; standard ones are torchvision's to the last bit."""

import bcos_core
import pytest
import torch
import torchvision
from bcos_core.run.error import InputError
from bcos_vision import create_model
from bcos_vision.models import TrainedClassifier
from bcos_vision.models.variant import NORMS
from torch import nn

# name, stem, side of the images
FAMILIES = [
    ("resnet20", None, 16),
    ("resnet18", "cifar", 16),
    ("resnet50", None, 64),
    ("resnext50_32x4d", "cifar", 8),
    ("densenet121", None, 64),
    ("vgg11", "cifar", 32),
    ("convnext_tiny", None, 32),
    ("convnext_tiny", "cifar", 8),
    ("simple_vit_ti_patch16_224", None, 32),
    ("simple_vit_ti_patch16_224", "cifar", 8),
    ("vitc_ti_patch1_14", None, 32),
    ("vitc_ti_patch1_14", "cifar", 8),
]
VARIANTS = ("bcos", "baseline", "standard")


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("name", "stem", "side"), FAMILIES, ids=lambda v: str(v or ""))
def test_every_family_trains_saves_loads_and_explains_completely(name, stem, side, variant, trained, tmp_path):
    torch.manual_seed(0)
    model = create_model(name, num_classes=5, variant=variant, stem=stem)
    images = torch.rand(2, 3, side, side)
    loss = nn.functional.binary_cross_entropy_with_logits(model(images), torch.eye(5)[:2])
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    trained(model, torch.rand(8, 3, side, side))
    TrainedClassifier(model, tuple("abcde"), (side, side), "x").save(tmp_path / "m.safetensors")
    loaded = TrainedClassifier.load(tmp_path / "m.safetensors").model
    explanation = bcos_core.explain(model, images)
    with torch.no_grad():
        torch.testing.assert_close(loaded(images), explanation.logits, rtol=0, atol=0)
    assert explanation.contributions.shape == (2, 6 if variant == "bcos" else 3, side, side)
    assert (explanation.contributions.abs().flatten(1).sum(1) > 1e-2).all()
    assert explanation.completeness_error.max() <= 1e-5
    # in float64 a baseline's GELU leaves errors of ndtr beside erf
    assert bcos_core.explain(model.double(), images.double()).completeness_error.max() <= 1e-12


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
    state = create_model("densenet121", num_classes=2, variant="standard").network.state_dict()
    old = {n.replace("norm1.", "norm.1.").replace("conv1.", "conv.1."): v for n, v in state.items()}
    old = {n.replace("norm2.", "norm.2.").replace("conv2.", "conv.2."): v for n, v in old.items()}
    torch.save(old, tmp_path / "old.pth")
    model = create_model("densenet121", num_classes=2, variant="standard", weights=tmp_path / "old.pth")
    assert all(torch.equal(v, state[n]) for n, v in model.network.state_dict().items())


@pytest.mark.parametrize("norm", list(NORMS))
def test_transformers_take_every_norm(norm, trained):
    torch.manual_seed(0)
    model = create_model("vitc_ti_patch1_14", num_classes=3, stem="cifar", norm=norm)
    trained(model, torch.rand(4, 3, 8, 8))
    assert bcos_core.explain(model, torch.rand(2, 3, 8, 8)).completeness_error.max() <= 1e-5


def test_transformers_say_which_sizes_they_take():
    with pytest.raises(InputError, match=r"sides that are multiples of 16 pixels, got 30x32"):
        create_model("simple_vit_ti_patch16_224")(torch.rand(1, 3, 30, 32))
    assert create_model("vitc_ti_patch1_14", num_classes=2)(torch.rand(1, 3, 16, 48)).shape == (1, 2)


def test_standard_vgg_is_bnu_only_where_asked():
    kinds = {type(m).__name__ for m in create_model("vgg11", stem="cifar", variant="standard").modules()}
    assert not [k for k in kinds if "Norm" in k]
    assert "BatchNormUncentered2d" in {type(m).__name__ for m in create_model("vgg11", stem="cifar").modules()}
