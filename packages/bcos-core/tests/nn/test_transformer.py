"""The pieces of transformers against their formulas, written out."""

import math

import pytest
import torch
from bcos_core import nn as bnn
from bcos_core.nn import GELU, BcosLinear, Hardswish, LayerNorm, MultiheadAttention, SelfAttention, SiLU, SinCosPosition
from torch import nn


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


def test_gelu_by_tanh(assert_close):
    x = torch.linspace(-5, 5, 41, dtype=torch.float64, requires_grad=True)
    inner = [math.sqrt(2 / math.pi) * (v + 0.044715 * v**3) for v in x.tolist()]
    gate = torch.tensor([(1 + math.tanh(v)) / 2 for v in inner], dtype=torch.float64)
    layer = GELU("tanh")
    assert_close(layer(x), x * gate)
    assert (layer(x) - GELU()(x)).abs().max() > 1e-5
    layer.detach = True
    assert_close(layer(x), x * gate)
    assert_close(torch.autograd.grad(layer(x).sum(), x)[0], gate)
    assert repr(layer) == "GELU(approximate='tanh')"
    with pytest.raises(ValueError, match='approximate: expected "none" or "tanh", got \'erf\''):
        GELU("erf")


@pytest.mark.parametrize(
    ("layer", "gate"),
    [(SiLU(), lambda v: 1 / (1 + math.exp(-v))), (Hardswish(), lambda v: min(max(v + 3, 0), 6) / 6)],
    ids=["SiLU", "Hardswish"],
)
def test_gates(layer, gate, assert_close):
    x = torch.linspace(-5, 5, 42, dtype=torch.float64, requires_grad=True)
    factor = torch.tensor([gate(v) for v in x.tolist()], dtype=torch.float64)
    assert_close(layer(x), x * factor)
    assert not torch.allclose(torch.autograd.grad(layer(x).sum(), x)[0], factor)
    layer.detach = True
    assert_close(layer(x), x * factor)
    assert_close(torch.autograd.grad(layer(x).sum(), x)[0], factor)
    layer.detach = False


def test_attention_with_biases_and_masks(assert_close):
    layer = SelfAttention(12, 3, nn.Identity(), bias=True).double()
    nn.init.normal_(layer.to_qkv.bias)
    x, mask = torch.randn(2, 5, 12, dtype=torch.float64), torch.randn(5, 5, dtype=torch.float64)
    weights, biases = layer.to_qkv.weight.chunk(3), layer.to_qkv.bias.chunk(3)
    q, k, v = ((x @ w.T + c).unflatten(2, (3, 4)).transpose(1, 2) for w, c in zip(weights, biases, strict=True))
    scores = q @ k.transpose(2, 3) / 2
    causal = torch.ones(5, 5).tril().bool()
    for options, found in (
        ({}, scores),
        ({"attn_mask": mask}, scores + mask),
        ({"is_causal": True}, scores.masked_fill(~causal, -torch.inf)),
    ):
        assert_close(layer(x, **options), (found.softmax(3) @ v).transpose(1, 2).flatten(2))


def torchs_attention(batch_first, bias):
    """PyTorch's layer and ours, with the same weights."""
    theirs = nn.MultiheadAttention(12, 3, bias=bias, batch_first=batch_first).double().eval()
    ours = MultiheadAttention(12, 3, nn.Linear(12, 12, bias=bias), bias=bias, batch_first=batch_first).double().eval()
    with torch.no_grad():
        ours.to_qkv.weight.copy_(theirs.in_proj_weight)
        ours.to_out.weight.copy_(theirs.out_proj.weight)
        if bias:
            for value in (theirs.in_proj_bias, theirs.out_proj.bias):
                value.normal_()
            ours.to_qkv.bias.copy_(theirs.in_proj_bias)
            ours.to_out.bias.copy_(theirs.out_proj.bias)
    return theirs, ours


@pytest.mark.parametrize("batch_first", [True, False], ids=["batch first", "tokens first"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", ""])
@pytest.mark.parametrize("average", [True, False], ids=["average", "each head"])
def test_attention_is_torchs(batch_first, bias, average, assert_close):
    theirs, ours = torchs_attention(batch_first, bias)
    x = torch.randn(2, 5, 12, dtype=torch.float64)
    expected, weights = theirs(x, x, x, average_attn_weights=average)
    for need_weights in (True, False):
        y, found = ours(x, x, x, need_weights=need_weights, average_attn_weights=average)
        assert_close(y, expected)
        assert found is None or torch.allclose(found, weights)
        assert (found is None) == (not need_weights)


def test_attention_as_torchs_in_explanation_mode(assert_close):
    """q and k are constants: the gradient goes through v alone, whether weights are needed or not."""
    theirs, ours = torchs_attention(batch_first=True, bias=True)
    x, grad = torch.randn(2, 5, 12, dtype=torch.float64, requires_grad=True), torch.randn(2, 5, 12).double()
    weights = theirs(x, x, x, average_attn_weights=False)[1].detach()
    v = (x @ theirs.in_proj_weight[24:].T).unflatten(2, (3, 4)).transpose(1, 2)
    y = (weights @ v).transpose(1, 2).flatten(2) @ theirs.out_proj.weight.T
    expected = torch.autograd.grad(y, x, grad)[0]
    ours.detach = True
    for need_weights in (True, False):
        found = torch.autograd.grad(ours(x, x, x, need_weights=need_weights)[0], x, grad)[0]
        assert_close(found, expected)


def test_attention_drops_weights_in_training_alone():
    layer, x = MultiheadAttention(8, 2, nn.Identity(), dropout=0.5, batch_first=True), torch.rand(1, 5, 8)
    for need_weights in (True, False):
        train = [layer.train()(x, x, x, need_weights=need_weights)[0] for _ in range(2)]
        assert not torch.equal(*train)
        evaluated = [layer.eval()(x, x, x, need_weights=need_weights)[0] for _ in range(2)]
        assert torch.equal(*evaluated)


def test_attention_refuses_what_it_is_not():
    layer, x = MultiheadAttention(8, 2, nn.Identity()), torch.rand(5, 1, 8)
    with pytest.raises(ValueError, match="query, key, value: expected one tensor of three dimensions for all"):
        layer(x, x + 1, x)
    with pytest.raises(ValueError, match="query, key, value"):
        layer(*[x[:, 0]] * 3)
    with pytest.raises(ValueError, match="key_padding_mask, attn_mask, is_causal: expected no mask"):
        layer(x, x, x, attn_mask=torch.zeros(5, 5))
    with pytest.raises(ValueError, match="dropout: expected a probability below 1, got 1"):
        SelfAttention(8, 2, nn.Identity(), dropout=1)
    assert repr(layer).startswith("MultiheadAttention(\n  heads=2, batch_first=False")


class TestLayerNorm:
    """Against PyTorch's, and the formula with the variance held constant."""

    @pytest.mark.parametrize("bias", [True, False], ids=["bias", ""])
    @pytest.mark.parametrize("detach", [True, False], ids=["detach", ""])
    def test_values_and_gradient(self, bias, detach, assert_close):
        layer = LayerNorm(6, eps=0.1, bias=bias).double()
        for parameter in layer.parameters():
            nn.init.normal_(parameter)
        layer.detach = detach
        x = (3 * torch.randn(2, 4, 5, 6, dtype=torch.float64) + 1).requires_grad_()
        mean = x.mean(-1, keepdim=True)
        var = x.square().mean(-1, keepdim=True) - mean.square()
        expected = (x - mean) / ((var.detach() if detach else var) + 0.1).sqrt() * layer.weight
        expected = expected + (layer.bias if bias else 0)
        y, grad = layer(x), torch.randn_like(x)
        assert_close(y, expected)
        assert_close(y, nn.functional.layer_norm(x, (6,), layer.weight, layer.bias, 0.1))
        assert_close(*(torch.autograd.grad(value, x, grad)[0] for value in (y, expected)), tolerance=1e-11)

    def test_half_precision(self, assert_close):
        layer, x = LayerNorm(6), 300 * torch.randn(4, 6)
        layer.detach = True
        y = layer(x.bfloat16())
        assert y.dtype == torch.bfloat16
        assert_close(y, nn.functional.layer_norm(x.bfloat16().float(), (6,)), tolerance=0.02)

    def test_arguments(self):
        assert [name for name, _ in LayerNorm(6).named_parameters()] == ["weight"]
        assert not list(LayerNorm(6, affine=False).parameters())
        assert repr(LayerNorm(6)) == "LayerNorm(6, eps=1e-05, affine=True, bias=False)"
        with pytest.raises(ValueError, match="features: expected at least 1, got 0"):
            LayerNorm(0)
        with pytest.raises(ValueError, match="bias: expected affine=True with bias=True"):
            LayerNorm(6, affine=False, bias=True)


def test_constant_is_the_value_itself():
    value = nn.Parameter(torch.randn(2, 3))
    y = bnn.Constant()(value)
    assert torch.equal(y, value)
    (grad,) = torch.autograd.grad(y.square().sum(), value)
    assert torch.equal(grad, 2 * value.detach())
