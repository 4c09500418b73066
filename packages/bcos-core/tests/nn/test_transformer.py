"""The pieces of transformers against their formulas, written out."""

import math

import pytest
import torch
from bcos_core.nn import GELU, BcosLinear, SelfAttention, SinCosPosition


@pytest.mark.parametrize("detach", [False, True], ids=["", "detach"])
def test_attention(detach, assert_close):
    layer = SelfAttention(12, 3, BcosLinear(12, 12)).double()
    layer.detach = layer.to_out.detach = detach
    x = torch.randn(2, 5, 12, dtype=torch.float64, requires_grad=True)
    q, k, v = (x @ w.T for w in layer.to_qkv.weight.chunk(3))
    q, k = (q.detach(), k.detach()) if detach else (q, k)
    heads = []
    for h in range(3):
        part = slice(4 * h, 4 * h + 4)
        scores = torch.einsum("nid,njd->nij", q[..., part], k[..., part]) / 2  # the root of four features a head
        heads.append(scores.exp() / scores.exp().sum(2, keepdim=True) @ v[..., part])
    expected = layer.to_out(torch.cat(heads, 2))
    y = layer(x)
    assert_close(y, expected)
    grad = torch.randn_like(y)
    assert_close(*(torch.autograd.grad(value, x, grad)[0] for value in (y, expected)))
    assert [name for name, _ in layer.named_parameters()] == ["to_qkv.weight", "to_out.weight"]


def test_attention_needs_heads_that_divide():
    with pytest.raises(ValueError, match="heads: expected a divisor of 12 features, got 5"):
        SelfAttention(12, 5, BcosLinear(12, 12))


def test_positions():
    """Feature by feature: sin and cos of the column, then of the row."""
    found = SinCosPosition()(torch.zeros(2, 3, 4, 8))
    for row in range(3):
        for column in range(4):
            for k, frequency in enumerate((1, 1e-4)):
                for offset, where in ((0, column), (4, row)):
                    angle = where * frequency
                    torch.testing.assert_close(found[1, row, column, offset + k], torch.tensor(math.sin(angle)))
                    torch.testing.assert_close(found[1, row, column, offset + 2 + k], torch.tensor(math.cos(angle)))
    tokens = torch.randn(1, 3, 4, 8)
    torch.testing.assert_close(SinCosPosition()(tokens), tokens + found[:1])


@pytest.mark.parametrize("dim", [6, 4])
def test_positions_need_features(dim):
    with pytest.raises(ValueError, match=f"expected a multiple of 4 features, at least 8, got {dim}"):
        SinCosPosition()(torch.zeros(1, 2, 2, dim))


def test_gelu(assert_close):
    x = torch.linspace(-5, 5, 41, dtype=torch.float64, requires_grad=True)
    gate = torch.tensor([(1 + math.erf(v / math.sqrt(2))) / 2 for v in x.tolist()], dtype=torch.float64)
    layer = GELU()
    assert_close(layer(x), x * gate)
    layer.detach = True
    assert_close(layer(x), x * gate)
    assert_close(torch.autograd.grad(layer(x).sum(), x)[0], gate)
