"""What the twin promises beyond the operators (those are held against the oracle in test_ops.py)."""

import pytest
import torch
from bcos_kernels import reference

EPS = 1e-6


@pytest.mark.parametrize(
    ("given", "computed"),
    [(torch.float64, torch.float64), *((d, torch.float32) for d in (torch.float32, torch.bfloat16, torch.float16))],
)
def test_computing_dtype(given, computed):
    assert reference.computing_dtype(given) == computed


def test_patch_norm(sample, oracle, assert_close):
    _, lin, x = sample.tensors()
    norm = reference.patch_norm(x, *sample.options[1:], EPS)
    assert_close(norm, oracle(lin, x, sample)[1])


def test_norm_of_a_linear_layer_is_that_of_the_row():
    x = torch.randn(5, 7, dtype=torch.float64)
    norm = reference.patch_norm(x[:, :, None, None], (1, 1), (1, 1), (0, 0), (1, 1), 1, 0.0)
    torch.testing.assert_close(norm.flatten(), x.norm(dim=1))


def test_double_backward_is_the_formulas_own():
    """The backward formula is differentiable: what the compiled operators' double backward runs."""
    generator = torch.Generator().manual_seed(0)
    lin, x, grad = (torch.rand(1, c, 3, 3, generator=generator, dtype=torch.float64) + 0.2 for c in (4, 2, 4))
    options = (1.5, (2, 2), (1, 1), (0, 0), (1, 1), 2)
    lin = lin[:, :, :2, :2]
    grad = grad[:, :, :2, :2]

    def backward(grad, lin, x):
        norm = reference.patch_norm(x, *options[1:], EPS)
        return reference.scale_backward(grad, lin, x, norm, *options, False, True)

    assert torch.autograd.gradcheck(backward, [t.clone().requires_grad_() for t in (grad, lin, x)])
