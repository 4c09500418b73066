import numpy as np
import pytest
import torch
from bcos_vision.train.clipping import clip_to_weights_


def clipped(weight, gradient, share):
    """Eq. 3 of arXiv 2102.06171, a unit at a time."""
    units = [np.array(...)] if weight.ndim == 1 else range(len(weight))
    result = gradient.copy()
    for unit in units:
        key = ... if weight.ndim == 1 else unit
        limit = share * max(np.sqrt((weight[key] ** 2).sum()), 1e-3)
        norm = np.sqrt((gradient[key] ** 2).sum())
        if norm > limit:
            result[key] = gradient[key] * limit / norm
    return result


@pytest.mark.parametrize("shape", [(5,), (4, 3), (4, 3, 2, 2), (1, 6, 5)])
@pytest.mark.parametrize("scale", [1.0, 1e-5])  # the smaller are held at 1e-3
def test_each_units_gradient_is_at_most_a_share_of_its_weights(shape, scale):
    rng = np.random.default_rng(0)
    weight, gradient = rng.standard_normal(shape) * scale, rng.standard_normal(shape) * 0.03 * scale
    gradient[0] *= 1e-3  # one that is not touched
    parameter = torch.nn.Parameter(torch.from_numpy(weight.copy()))
    parameter.grad = torch.from_numpy(gradient.copy())
    clip_to_weights_([parameter, torch.nn.Parameter(torch.zeros(2))], 0.01)
    expected = clipped(weight, gradient, 0.01)
    np.testing.assert_allclose(parameter.grad.numpy(), expected, rtol=1e-12)
    np.testing.assert_array_equal(parameter.detach().numpy(), weight)


def test_no_gradient_stays_none():
    parameter = torch.nn.Parameter(torch.ones(3, 2))
    parameter.grad = torch.zeros(3, 2)
    clip_to_weights_([parameter], 0.01)
    assert torch.equal(parameter.grad, torch.zeros(3, 2))
