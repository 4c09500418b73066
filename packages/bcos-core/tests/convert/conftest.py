"""The networks that must convert, their layers' statistics and biases at no easy initial value."""

import copy
import functools

import pytest
import torch
from torch import nn

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
CLASSES = 7


def _torchvision(name, **options):
    return getattr(pytest.importorskip("torchvision.models"), name)(num_classes=CLASSES, **options)


def _vgg(name):
    """As published, but for 64 features where it has 4096."""
    model = _torchvision(name, init_weights=False)
    model.classifier[0], model.classifier[3] = nn.Linear(512 * 7 * 7, 64), nn.Linear(64, 64)
    model.classifier[6] = nn.Linear(64, CLASSES)
    return model


def _vision_transformer(**options):
    models = pytest.importorskip("torchvision.models")
    return models.VisionTransformer(64, 16, 2, 4, 32, 64, num_classes=CLASSES, **options)


def _vit_with_stem():
    config = pytest.importorskip("torchvision.models.vision_transformer").ConvStemConfig
    return _vision_transformer(conv_stem_configs=[config(16, 3, 4), config(32, 3, 4)])


def _own(name, variant):
    vision = pytest.importorskip("bcos_vision")
    return vision.create_model(name, num_classes=CLASSES, variant=variant, stem="cifar", mean=MEAN, std=STD)


TORCHVISION = {
    "resnet18": lambda: _torchvision("resnet18"),
    "resnext50_32x4d": lambda: _torchvision("resnext50_32x4d"),
    "vgg11": lambda: _vgg("vgg11"),
    "vgg11_bn": lambda: _vgg("vgg11_bn"),
    "densenet121": lambda: _torchvision("densenet121"),
    "convnext_tiny": lambda: _torchvision("convnext_tiny"),
    "vit": _vision_transformer,
    "vit, convolutional stem": _vit_with_stem,
    "googlenet": lambda: _torchvision("googlenet", init_weights=False, aux_logits=False),  # functional ReLUs
}
OWN = {
    f"{name}, {variant}": functools.partial(_own, name, variant)
    for name, variant in (
        *(("resnet20", "standard"), ("resnet20", "baseline"), ("vgg11", "standard"), ("densenet121", "standard")),
        *(("convnext_tiny", "standard"), ("simple_vit_ti_patch16_224", "standard")),
        *(("simple_vit_ti_patch16_224", "baseline"), ("vitc_ti_patch1_14", "standard")),
    )
}


def randomise(model):
    """No statistic, bias or scale at its easy initial value, and no layer that answers zeros."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._NormBase) and module.running_mean is not None:
                module.running_mean.normal_(0, 0.3, generator=generator)
                module.running_var.uniform_(0.5, 1.5, generator=generator)
            for name, parameter in module.named_parameters(recurse=False):
                if "bias" in name or name == "class_token":
                    parameter.normal_(0, 0.1, generator=generator)
                elif name == "layer_scale":
                    parameter.uniform_(0.5, 1, generator=generator)
                elif parameter.dim() == 1:
                    parameter.uniform_(0.5, 1.5, generator=generator)
                elif not parameter.any():
                    parameter.normal_(0, 0.1, generator=generator)
    return model


@functools.cache
def _built(name):
    torch.manual_seed(0)
    return randomise({**TORCHVISION, **OWN}[name]()).eval()


@pytest.fixture(params=[*TORCHVISION, *OWN])
def family(request):
    """A name, a plain network of that name, and options of its conversion."""
    name = request.param
    return name, copy.deepcopy(_built(name)), {} if name in OWN else {"mean": MEAN, "std": STD}


@pytest.fixture
def has_constants():
    """Name -> whether the network has positions, a class token or a bias of the logits, which are no layer's biases."""
    return lambda name: "vit" in name or "baseline" in name


@pytest.fixture
def images():
    """(name, dtype) -> two images in [0, 1], of the size that a network of the list takes."""

    def compute(name, dtype=torch.float64):
        side = 64 if name in TORCHVISION else 32 if "vgg" in name else 16
        return torch.rand(2, 3, side, side, dtype=dtype)

    return compute


@pytest.fixture
def plain_logits():
    """(plain network, images) -> what it answers to them, standardised by hand where it does not do so itself."""

    def compute(name, model, x):
        if name in OWN:
            return model(x)
        mean, std = (torch.tensor(v, dtype=x.dtype).view(3, 1, 1) for v in (MEAN, STD))
        return model((x - mean) / std)

    return compute


@pytest.fixture
def lively():
    """(converted network, images) -> the same, its layers' weights scaled so that no signal dies on its way."""
    from bcos_core.nn import BcosLayer

    def compute(model, x):
        def scale(layer, _, y):
            factor = 1 / y.std()
            layer.weight.mul_(factor)
            if layer.bias is not None:
                layer.bias.mul_(factor)
            return y * factor

        hooks = [m.register_forward_hook(scale) for m in model.modules() if isinstance(m, BcosLayer)]
        with torch.no_grad():
            model(x)
        for hook in hooks:
            hook.remove()
        return model

    return compute
