import captum.attr
import pytest
import torch
import torch.nn.functional as F
from bcos_core.run.error import InputError
from bcos_eval.attribution import create_attributor
from bcos_eval.attribution.cam import find_layer
from bcos_vision import create_model
from torch import nn


def compute(model, images, target, **options):
    return create_attributor("gradcam", model, **options).attribute(images, target).map


@pytest.mark.parametrize("upsample", ["bilinear", "nearest"])
def test_by_hand(images, target, upsample):
    conv, linear = nn.Conv2d(1, 2, 2, stride=2), nn.Linear(2, 3)
    model = nn.Sequential(conv, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear).eval()
    found = compute(model, images, target, upsample=upsample)
    for i in range(3):
        maps = conv(images[i : i + 1]).relu()[0]
        # the gradient of a mean over 4x4 positions is the class's weight / 16 everywhere, and so is its mean
        cam = (linear.weight[target[i]] / 16 * maps.movedim(0, 2)).sum(2).relu()
        expected = F.interpolate(cam[None, None], (8, 8), mode=upsample)[0, 0]
        torch.testing.assert_close(found[i], expected.detach())


def test_equals_captum(plain, images, target):
    expected = captum.attr.LayerGradCam(plain.network, plain.network[3]).attribute(
        plain.encode(images).requires_grad_(), target=target, relu_attributions=True
    )
    expected = captum.attr.LayerAttribution.interpolate(expected, (8, 8), "bilinear")[:, 0]
    torch.testing.assert_close(compute(plain, images, target), expected.detach())
    torch.testing.assert_close(compute(plain, images, target, layer="3"), expected.detach())


@pytest.mark.parametrize("variant", ["bcos", "baseline"])
def test_equals_captum_on_our_networks(variant):
    model = create_model("resnet20", num_classes=5, variant=variant, in_channels=1).eval()
    images, target = torch.rand(2, 1, 16, 16), torch.tensor([4, 1])
    network = model.network
    expected = captum.attr.LayerGradCam(network, network.layer3).attribute(
        model.encode(images).requires_grad_(), target=target, relu_attributions=True
    )
    assert float(expected.detach().max()) > 0
    expected = captum.attr.LayerAttribution.interpolate(expected, (16, 16), "bilinear")[:, 0]
    torch.testing.assert_close(compute(model, images, target), expected.detach())


def test_tokens_by_hand(target):
    model = create_model("simple_vit_ti_patch16_224", num_classes=3, variant="standard", stem="cifar").eval()
    images = torch.rand(2, 3, 16, 24)
    found = compute(model, images, target[:2])
    network, x = model.network, model.encode(images)
    last_but_one, last = network.blocks[-2], network.blocks[-1]
    kept = []
    handle = last_but_one.register_forward_hook(lambda _m, _a, output: kept.append(output))
    network(x)
    handle.remove()
    tokens = kept[0].detach().requires_grad_()
    rest = network.norm(last(tokens).mean(1)[:, :, None, None])[:, :, 0, 0]
    logits = network.logits(network.head(rest)).gather(1, target[:2, None])
    torch.testing.assert_close(logits, model(images).gather(1, target[:2, None]))
    weight = torch.autograd.grad(logits.sum(), tokens)[0].mean(1, keepdim=True)
    side = network.patch
    cam = (weight * tokens).sum(2).relu().view(2, 1, 16 // side, 24 // side)
    expected = F.interpolate(cam, (16, 24), mode="bilinear")[:, 0]
    torch.testing.assert_close(found, expected.detach(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("variant", ["bcos", "baseline", "standard"])
@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("resnet20", "layer3"),  # but for the standard variant, its classifier gives maps, too
        ("densenet121", "features"),
        ("convnext_tiny", "features"),  # its norm comes before or after the pooling
        ("vitc_ti_patch1_14", "blocks.9"),
    ],
)
def test_finds_the_same_layer_in_all_variants(name, variant, layer):
    model = create_model(name, num_classes=10, variant=variant, stem="cifar").eval()
    assert find_layer(model.network, model.encode(torch.rand(1, 3, 32, 32))) == layer


@pytest.mark.parametrize(("variant", "layer"), [("bcos", "features.19"), ("baseline", "features.27")])
def test_finds_the_last_map_before_a_pooling_to_one_position(variant, layer):
    model = create_model("vgg11", num_classes=10, variant=variant, stem="cifar").eval()
    assert find_layer(model.network, model.encode(torch.rand(1, 3, 32, 32))) == layer


def test_a_head_of_several_convolutions_is_no_feature_map():
    class Vgg(nn.Module):
        def __init__(self):
            super().__init__()
            self.features = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU())
            self.classifier = nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Conv2d(8, 3, 1))

        def forward(self, x):
            return self.classifier(self.features(x)).mean((2, 3))

    assert find_layer(Vgg(), torch.rand(1, 1, 8, 8)) == "features"


def test_a_class_token_is_no_part_of_the_grid(target):
    class Tokens(nn.Module):
        """A class token before 4x4 patches of 2x2 pixels; two blocks, the second of which mixes."""

        def __init__(self):
            super().__init__()
            self.embed = nn.Conv2d(1, 3, 2, 2)
            self.blocks = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))

        def forward(self, x):
            tokens = self.embed(x).flatten(2).transpose(1, 2)
            tokens = torch.cat([tokens.new_zeros(len(x), 1, 3), tokens], 1)
            return self.blocks(tokens).square().mean(1)

    model, images = Tokens().eval(), torch.zeros(1, 1, 8, 8)
    with torch.no_grad():
        model.embed.weight.fill_(1)
        model.embed.bias.zero_()
        for block in model.blocks:
            block.weight.copy_(torch.eye(3))
            block.bias.zero_()
    images[0, 0, 2:4, 6:8] = 1  # the patch in row 1, column 3
    found = compute(model, images, target[:1], upsample="nearest")[0]
    assert bool((found[2:4, 6:8] > 0).all())
    found[2:4, 6:8] = 0
    assert not found.any()


def test_refusals(plain, linear, images, target):
    with pytest.raises(InputError, match='unknown layer "4x"'):
        compute(plain, images, target, layer="4x")
    with pytest.raises(InputError, match="layer: 6 gives neither feature maps"):
        compute(plain, images, target, layer="6")
    with pytest.raises(InputError, match='unknown upsample "bicubic"'):
        compute(plain, images, target, upsample="bicubic")
    with pytest.raises(InputError, match="no module of this network gives feature maps of more than one position"):
        compute(linear, images, target)
