"""What the twin promises beyond the operators (those are held against the formula in test_ops.py)."""

import pytest
import torch
from bcos_kernels import reference
from samples import EPS, formula, formula_gradients


@pytest.mark.parametrize(
    ("given", "computed"),
    [(torch.float64, torch.float64), *((d, torch.float32) for d in (torch.float32, torch.bfloat16, torch.float16))],
)
def test_computing_dtype(given, computed):
    assert reference.computing_dtype(given) == computed


def kind_of_layer(sample):
    return reference.Product() if sample.linear else reference.Convolution(sample.kernel_size, *sample.window)


def test_norm(sample, assert_close):
    x, weight, exponent, _ = sample.tensors()
    assert_close(kind_of_layer(sample).norm(x, EPS), formula(x, weight, exponent, sample)[1])


@pytest.mark.parametrize("detach", [False, True], ids=["attached", "detached"])
def test_gradients_without_a_saved_response(sample, detach, assert_close):
    """What double backward differentiates."""
    x, weight, exponent, grad = sample.tensors()
    layer = kind_of_layer(sample)
    winner = reference.forward(layer, x, weight, exponent, sample.b, sample.max_out, EPS)[2]
    needs = reference.Needs(exponent=exponent is not None)
    options = (winner, sample.b, sample.max_out, detach, EPS, needs)
    found = reference.gradients(layer, grad, x, weight, exponent, *options)
    expected = formula_gradients(x, weight, exponent, grad, sample, detach)
    for actual, value in zip(found, expected, strict=False):
        assert_close(actual, value)


def test_directions_of_extreme_filters():
    weight = torch.tensor([[3e30, 4e30], [3e-30, 4e-30], [0, 0]])
    unit, length = reference.directions(weight)
    torch.testing.assert_close(unit, torch.tensor([[0.6, 0.8], [0.6, 0.8], [0, 0]]))
    torch.testing.assert_close(length[:2, 0], torch.tensor([5e30, 5e-30]))
