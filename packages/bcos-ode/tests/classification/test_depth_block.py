"""Integration over depth time, and what classifiers made of it guarantee."""

import numpy as np
import pytest
import torch
from bcos_core import explain
from bcos_core.run.checkpoint import save_model
from bcos_core.run.error import InputError
from bcos_ode.classification import ClassificationConfig, OdeClassifier
from bcos_ode.classification.classifier import DepthBlock
from bcos_ode.runge_kutta import TABLEAUX, step
from scipy.integrate import solve_ivp
from torch import nn

ARMS = [(variant, block) for variant in ("bcos", "vanilla") for block in ("ode", "residual", "none")]


def make(variant="bcos", block="ode", dtype=torch.float64, **options):
    """A classifier with no parameter at its easy initial value."""
    torch.manual_seed(0)
    config = ClassificationConfig(variant=variant, block=block, channels=8, **options)
    model = OdeClassifier(config, classes="abc", in_channels=1, statistics=([0.3], [0.4])).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.normal_(1, 0.3)
    return model


class Pendulum(nn.Module):
    """A driven one: the time matters."""

    def forward(self, h, t):
        angle, speed = h[:, :1], h[:, 1:]
        return torch.cat([speed, -3 * angle.sin() + 2 * np.cos(4 * t)], 1)


@pytest.mark.parametrize("method", TABLEAUX)
def test_converges_to_scipys_solution_at_the_methods_order(method):
    start = torch.tensor([[0.5, -0.2]], dtype=torch.float64).view(1, 2, 1, 1)
    exact = solve_ivp(
        lambda t, h: [h[1], -3 * np.sin(h[0]) + 2 * np.cos(4 * t)], (0, 1), [0.5, -0.2], rtol=1e-11, atol=1e-12
    )
    errors = [
        np.abs(DepthBlock(Pendulum(), TABLEAUX[method], steps)(start).flatten().numpy() - exact.y[:, -1]).max()
        for steps in (40, 80)
    ]
    assert np.log2(errors[0] / errors[1]) == pytest.approx(TABLEAUX[method].order, abs=0.25)


def test_step_of_an_autonomous_field_is_called_without_the_time():
    z = step(lambda z: -z, torch.ones(1, 1, dtype=torch.float64), 0.1, TABLEAUX["rk4"])
    assert float(z) == pytest.approx(np.exp(-0.1), abs=1e-6)


def test_residual_block_is_one_euler_step():
    model = make(block="residual")
    h = torch.rand(2, 8, 4, 4, dtype=torch.float64)
    torch.testing.assert_close(model.network.block(h), h + model.network.block.field(h, 0.0))


@pytest.mark.parametrize(("method", "steps", "expected"), [("midpoint", 3, 6), ("rk4", 2, 8), ("euler", 5, 5)])
def test_evaluations_are_those_of_the_field(method, steps, expected):
    model = make(method=method, steps=steps)
    times = []
    model.network.block.field.register_forward_hook(lambda module, args, output: times.append(args[1]))
    model(torch.rand(1, 1, 8, 8, dtype=torch.float64))
    assert len(times) == model.num_evaluations == expected
    assert min(times) == 0
    assert max(times) <= 1


@pytest.mark.parametrize(("variant", "block"), ARMS)
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_contributions_of_pixels_and_constants_add_up(variant, block, dtype, bound):
    model = make(variant, block, dtype).eval()
    found = explain(model, torch.rand(4, 1, 8, 8, dtype=dtype))
    assert (found.completeness_error <= bound).all()
    torch.testing.assert_close(found.logits, model(found.inputs[:, :1] if variant == "bcos" else unstandardise(found)))


def unstandardise(explanation):
    return explanation.inputs * 0.4 + 0.3


def test_time_stands_in_the_remainder():
    """Without bias and norms, B-cos layers of exponent 1 are linear: the remainder is what a zero image answers."""
    model = make(b=1.0).eval()
    field = model.network.block.field
    field.norm1, field.norm2 = nn.Identity(), nn.Identity()
    images = torch.rand(2, 1, 8, 8, dtype=torch.float64)
    found = explain(model, images, 1)
    at_zero = model.network(torch.zeros(1, 2, 8, 8, dtype=torch.float64))[0, 1]
    torch.testing.assert_close(found.remainder, at_zero.detach().expand(2))
    bias = model.network.head[-1].bias
    assert (found.remainder - bias).abs().min() > 1e-3


@pytest.mark.parametrize(("variant", "block"), ARMS)
def test_an_image_is_answered_alike_in_any_batch(variant, block):
    model = make(variant, block).train()
    images = torch.rand(5, 1, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(model(images)[2:3], model(images[2:3]))


@pytest.mark.parametrize(("variant", "block"), ARMS)
def test_saved_model_answers_alike(variant, block, tmp_path):
    model = make(variant, block, torch.float32).eval()
    model.save(tmp_path / "model.safetensors")
    loaded = OdeClassifier.load(tmp_path / "model.safetensors")
    images = torch.rand(2, 1, 8, 8)
    assert torch.equal(loaded(images), model(images))
    assert (loaded.config, loaded.classes) == (model.config, ("a", "b", "c"))


def test_a_file_of_another_model_is_refused(tmp_path):
    save_model(tmp_path / "other.safetensors", nn.Linear(2, 2), {"inputs": ["x"]})
    with pytest.raises(InputError, match="not a description of a classifier over depth time"):
        OdeClassifier.load(tmp_path / "other.safetensors")


def test_images_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"images: expected shape \(N, 1, H, W\), got \(2, 3, 8, 8\)"):
        make()(torch.rand(2, 3, 8, 8))
