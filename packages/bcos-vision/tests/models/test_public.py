"""Public B-cos v2 checkpoints, loaded as they are, against an evaluation without modules (public_zoo.py)."""

import copy
import math
import re
from types import SimpleNamespace

import bcos_core
import pytest
import torch
from bcos_core.run.error import InputError
from bcos_vision import create_model
from bcos_vision.models.public import from_public

from .public_zoo import (
    BUFFERS,
    ENTRY_POINTS,
    draw_images,
    encode,
    public_explanation,
    public_forward,
    public_layout,
    random_checkpoint,
)

SMALL = (
    *("resnet18", "resnet50", "resnext50_32x4d", "densenet121", "vgg11_bnu", "convnext_tiny", "convnext_tiny_bnu"),
    *("simple_vit_ti_patch16_224", "vitc_ti_patch1_14"),
    *("standard_simple_vit_ti_patch16_224", "standard_vitc_ti_patch1_14"),
)
# Both are misprints: a B-cos ViT is the standard one, whose published count is right, without its biases and with
# three more input channels. That makes 22 217 088 and 81 326 016, and the counts published for the other six.
MISPRINTED = {"simple_vit_s_patch16_224": 22.22, "vitc_b_patch1_14": 81.33}
TARGET = torch.tensor([1, 4])


def millions(entry_point: str) -> str:
    return f"{MISPRINTED.get(entry_point, ENTRY_POINTS[entry_point]):.2f}"


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Tensors this small gain nothing from a second thread, and lose much where other work needs it."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=SMALL)
def public(request):
    """A checkpoint with trained-looking weights, and the images that it was drawn from."""
    name = request.param
    images = draw_images(2, torch.Generator().manual_seed(0))
    state = random_checkpoint(name, 7, torch.Generator().manual_seed(0))
    return SimpleNamespace(name=name, state=state, images=images, encoded=encode(name, images))


@pytest.fixture(scope="module")
def model(public, tmp_path_factory):
    path = tmp_path_factory.mktemp("public") / f"{public.name}.pth"
    torch.save(public.state, path)
    model = create_model(public.name, num_classes=7, weights=path).eval()
    path.unlink()  # half a gigabyte of VGG
    return model


def relative_error(value, expected):
    return ((value - expected).abs().max() / expected.abs().max()).item()


def test_the_oracle_itself_adds_up(public):
    """In float64: contributions, and what biases, positions and the logit bias add, make the logit."""
    if public.name == "vgg11_bnu":
        pytest.skip("a gigabyte of weights; its layers are those of the ResNets")
    encoded = encode(public.name, public.images.double())
    contributions, remainder = public_explanation(public.name, public.state, encoded, TARGET)
    logit = public_forward(public.name, public.state, encoded)[[0, 1], TARGET]
    torch.testing.assert_close(contributions.flatten(1).sum(1) + remainder, logit, rtol=1e-12, atol=1e-12)
    if "vit" not in public.name:
        torch.testing.assert_close(remainder, torch.full_like(remainder, -math.log(6)), rtol=1e-12, atol=0)


def test_logits_are_those_of_the_public_code(public, model):
    with torch.no_grad():
        logits = model(public.images)
    expected = public_forward(public.name, public.state, public.encoded)
    assert expected.isfinite().all()
    assert expected.std() > 0.5  # constant logits would agree too easily
    assert relative_error(logits, expected) <= 1e-4


def test_explanations_are_those_of_the_public_code(public, model):
    explanation = bcos_core.explain(model, public.images, TARGET)
    contributions, remainder = public_explanation(public.name, public.state, public.encoded, TARGET)
    torch.testing.assert_close(explanation.inputs, public.encoded)
    assert relative_error(explanation.contributions, contributions) <= 1e-4
    torch.testing.assert_close(explanation.remainder, remainder, rtol=1e-4, atol=1e-4)
    assert explanation.completeness_error.max() <= 1e-5


def test_logits_are_the_formulas_in_double_precision(public, model):
    if public.name == "vgg11_bnu":
        pytest.skip("a gigabyte of weights; its layers are those of the ResNets")
    model = copy.deepcopy(model).double()
    images = public.images.double()
    # by the model's own encoding: mean and std are float32 there, which alone is worth 5e-8
    expected = public_forward(public.name, public.state, model.encode(images))
    with torch.no_grad():
        logits = model(images)
    # of a ViT the public code makes the positions in float32 (worth 1e-8), and its linear layers add 1e-12 to the norm
    # where ours may add 1e-6 to its square (worth 2e-9); another eps in a layer norm would be worth 1e-7
    assert relative_error(logits, expected) <= (3e-8 if "vit" in public.name else 1e-12)


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_sizes_and_names_are_the_published_ones(name):
    layout = public_layout(name)
    assert f"{sum(math.prod(s) for k, s in layout.items() if not k.endswith(BUFFERS)) / 1e6:.2f}" == millions(name)
    with torch.device("meta"):
        model = create_model(name)
        state = {key: torch.empty(shape) for key, shape in layout.items()}
    assert f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f}" == millions(name)
    found = from_public(model.network, state, name)  # raises if a name or a shape is another
    assert found.keys() == model.network.state_dict().keys()


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("resnet18", "layer2.0.downsample.0.linear.weight"),
        ("convnext_tiny", "features.4.1.layer_scale"),
        ("simple_vit_ti_patch16_224", "0.transformer.encoder_3.attn.to_out.linear.weight"),
        ("standard_vitc_ti_patch1_14", "to_patch_embedding.conv_stem.3.bias"),
    ],
)
def test_another_checkpoint_is_refused_in_the_public_names(name, key, tmp_path):
    state = {
        k: torch.zeros(s, dtype=torch.int64 if k.endswith("num_batches_tracked") else torch.float32)
        for k, s in public_layout(name, 7).items()
    }
    path = tmp_path / "public.pth"

    def message(changed):
        torch.save(changed, path)
        with pytest.raises(InputError) as error:
            create_model(name, num_classes=7, weights=path)
        return str(error.value)

    missing = message({k: v for k, v in state.items() if k != key})
    assert re.search(rf"missing.*(?<!\S){re.escape(key)}\b", missing), missing
    unexpected = message({**state, key + "_more": torch.zeros(3)})
    assert re.search(rf"unexpected.*(?<!\S){re.escape(key)}_more\b", unexpected), unexpected
    reshaped = message({**state, key: torch.zeros(3, 5)})
    assert re.search(rf"shape.*(?<!\S){re.escape(key)}.*\(3, 5\)", reshaped), reshaped
