import copy

import pytest
import torch
from bcos_core.run.error import InputError
from bcos_eval.attribution import METHODS, catalogue, create_attributor
from bcos_eval.attribution.subject import Subject
from torch import nn

FAST = {"lime": {"samples": 70}, "kernel_shap": {"samples": 70}, "rise": {"samples": 30}}


def make(name, model, **options):
    return create_attributor(name, model, **FAST.get(name, {}), **options)


def flags_of(module):
    """Flags of a module that explaining may switch."""
    return module.training, getattr(module, "inplace", None), getattr(module, "detach", None)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("kind", ["plain", "bcos"])
def test_leaves_the_model_as_it_was(name, kind, images, target, request):
    model = request.getfixturevalue(kind)
    model.network.insert(1, nn.BatchNorm2d(4))
    if kind == "plain":
        model.network[2].inplace = True
    else:
        model.network[0].detach = True
    next(model.parameters()).requires_grad_(False)
    model.train()
    model.network[0].eval()
    flags, tensors = [flags_of(m) for m in model.modules()], copy.deepcopy(model.state_dict())
    given, state = images.clone(), torch.random.get_rng_state()
    found = make(name, model).attribute(images, target)
    assert found.map.shape == (3, 8, 8)
    assert torch.isfinite(found.map).all()
    assert not found.map.requires_grad
    assert torch.equal(found.target, target)
    assert (found.residual is not None) == (name in ("bcos", "integrated_gradients", "deeplift", "kernel_shap"))
    assert flags == [flags_of(m) for m in model.modules()]
    assert all(torch.equal(value, tensors[key]) for key, value in model.state_dict().items())
    assert [p.requires_grad for p in model.parameters()] == [False] + [True] * (len(list(model.parameters())) - 1)
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(images, given)
    assert torch.equal(state, torch.random.get_rng_state())
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in model.modules())


@pytest.mark.parametrize("name", METHODS)
def test_depends_neither_on_batches_nor_on_neighbours(name, plain, images, target, monkeypatch):
    attributor = make(name, plain, seed=1)
    together = attributor.attribute(images, target).map
    monkeypatch.setattr(catalogue, "_ROWS", 2)
    torch.testing.assert_close(attributor.attribute(images, target).map, together, rtol=1e-4, atol=1e-6)
    alone = attributor.attribute(images[1:2], target[1:2]).map
    torch.testing.assert_close(alone[0], together[1], rtol=1e-4, atol=1e-6)
    if METHODS[name].draws:
        assert not torch.allclose(make(name, plain, seed=2).attribute(images, target).map, together)


def test_images_draw_independently(images, target):
    class Counts(nn.Module):
        """A logit that ignores the image: of RISE's map nothing is left but what the masks do."""

        def forward(self, x):
            return torch.stack([x.new_zeros(len(x)), (x - 0.5).abs().gt(1e-6).float().mean((1, 2, 3))], 1)

    binary = (images > 0.5).to(images.dtype)
    first, second, _ = make("rise", Counts()).attribute(binary, torch.ones(3).long()).map.flatten(1)
    again = make("rise", Counts()).attribute(binary[:1], torch.ones(1).long()).map.flatten()
    assert torch.equal(first, again)
    assert abs(torch.corrcoef(torch.stack([first, second]))[0, 1]) < 0.95


def test_batches_are_halved_when_memory_runs_out(plain, images, target, monkeypatch):
    seen = []

    class Small(nn.Module):
        """A device that holds two inputs."""

        def forward(self, x):
            seen.append(len(x))
            if len(x) > 2:
                raise torch.OutOfMemoryError("out of memory")
            return plain(x)

    for name in ("gradient", "integrated_gradients", "occlusion", "rise", "smoothgrad"):
        seen.clear()
        found = make(name, Small()).attribute(images, target).map
        assert max(seen) > 2
        # not to be compared with `plain`, which encodes
        monkeypatch.setattr(catalogue, "_ROWS", 1)
        torch.testing.assert_close(found, make(name, Small()).attribute(images, target).map, rtol=1e-4, atol=1e-6)
        monkeypatch.undo()

    class None_(nn.Module):
        def forward(self, x):
            if torch.is_grad_enabled():
                raise torch.OutOfMemoryError("out of memory")
            return plain(x)

    with pytest.raises(torch.OutOfMemoryError):
        make("gradient", None_()).attribute(images, target)


@pytest.mark.parametrize("name", ["saliency", "gradcam", "deeplift", "occlusion"])
def test_nothing_stays_after_an_exception(name, plain, images, target):
    class Fails(nn.Module):
        calls = 0

        def forward(self, x):
            Fails.calls += 1
            if Fails.calls > 1:
                raise RuntimeError("no")
            return x

    plain.network.append(Fails())
    plain.train()
    with pytest.raises(RuntimeError, match="no"):
        make(name, plain).attribute(images, target)
    assert all(m.training for m in plain.modules())
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in plain.modules())


def test_works_without_gradients_and_in_inference_mode(plain, images, target):
    expected = make("gradient", plain).attribute(images, target).map
    with torch.no_grad():
        assert torch.equal(make("gradient", plain).attribute(images, target).map, expected)
    with torch.inference_mode():
        assert torch.equal(make("gradient", plain).attribute(images, target).map, expected)


def test_double_precision(plain, images, target):
    for name in METHODS:
        assert make(name, plain.double()).attribute(images.double(), target).map.dtype == torch.float64


@pytest.mark.parametrize(
    ("images", "target", "message"),
    [
        (
            torch.rand(0, 1, 8, 8),
            torch.zeros(0).long(),
            r"images: .* N >= 1, got .* shape \(0, 1, 8, 8\)",
        ),
        (torch.rand(1, 8, 8), torch.tensor([0]), r"images: .* got torch.float32 of shape \(1, 8, 8\)"),
        (torch.zeros(1, 1, 8, 8).byte(), torch.tensor([0]), "images: expected floating-point images"),
        (torch.rand(1, 1, 8, 8) * 255, torch.tensor([0]), r"images: expected values in \[0, 1\], got"),
        (torch.rand(1, 1, 8, 8), torch.tensor([5]), "target: expected classes from 0 to 4, got 5 to 5"),
        (torch.rand(1, 1, 8, 8), torch.tensor([-1]), "target: expected classes from 0 to 4, got -1 to -1"),
        (torch.rand(1, 1, 8, 8), torch.tensor([1.0]), "target: expected 1 class indices, one for each image"),
        (torch.rand(1, 1, 8, 8), torch.tensor([1, 2]), "target: expected 1 class indices, one for each image"),
        (torch.rand(1, 1, 8, 8), 1, "target: expected 1 class indices, one for each image, got 1"),
    ],
)
def test_refuses_wrong_inputs(plain, images, target, message):
    with pytest.raises(ValueError, match=message):
        make("gradient", plain).attribute(images, target)


def test_refuses_a_model_without_logits(images, target):
    with pytest.raises(ValueError, match=r"model: expected logits of shape \(N, K\), got shape \(1, 1, 8, 8\)"):
        make("gradient", nn.Identity()).attribute(images, target)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("saliancy", {}, 'unknown method "saliancy"; did you mean "saliency"'),
        ("lime", {"sample": 5}, 'lime: unknown option "sample"; did you mean "samples"'),
        ("saliency", {"abs": False}, 'saliency: unknown option "abs"; it has none'),
        ("saliency", {"baseline": "grey"}, 'saliency: unknown option "baseline"; it has none'),
    ],
)
def test_refuses_unknown_names(plain, name, options, message):
    with pytest.raises(InputError, match=message):
        create_attributor(name, plain, **options)


def test_every_method_says_what_it_is():
    for name, method in METHODS.items():
        assert method.name == name
        assert method.says
        assert ("baseline" in method.options) == (
            name in ("integrated_gradients", "deeplift", "occlusion", "lime", "kernel_shap", "rise")
        )
        assert method.is_quick == (name not in ("occlusion", "lime", "kernel_shap", "rise"))


def test_a_compiled_model_is_taken_apart(plain, images, target):
    class Compiled(nn.Module):
        def __init__(self):
            super().__init__()
            self._orig_mod = plain

    expected = make("gradient", plain).attribute(images, target).map
    assert torch.equal(make("gradient", Compiled()).attribute(images, target).map, expected)


def test_subject_total(plain, images, target):
    black = plain.encode(torch.zeros_like(images))
    found = Subject(plain, 8).total(plain.encode(images), black, target)
    expected = plain(images).double() - plain(torch.zeros_like(images)).double()
    torch.testing.assert_close(found, expected[range(3), target].detach())
