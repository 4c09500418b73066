"""Layers of timm, by their qualified names: stand-ins of the same names and attributes, and timm's own where it is."""

import pytest
import torch
import torch.nn.functional as F
from bcos_core import bcosify, explain
from torch import nn


def of_timm(module, name=None):
    """Give a class the qualified name that the rules know."""

    def rename(kind):
        kind.__module__, kind.__qualname__ = module, name or kind.__name__
        return kind

    return rename


@of_timm("timm.layers.attention")
class Attention(nn.Module):
    def __init__(self, dim, heads, *, normed=False, drop=0.0):
        super().__init__()
        self.num_heads = heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.q_norm = nn.LayerNorm(dim // heads) if normed else nn.Identity()
        self.k_norm, self.norm = nn.Identity(), nn.Identity()
        self.attn_drop, self.proj_drop = nn.Dropout(drop), nn.Dropout(drop)

    def forward(self, x, attn_mask=None, is_causal=False):
        n, tokens, dim = x.shape
        q, k, v = self.qkv(x).view(n, tokens, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        weights = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1)
        return self.proj_drop(self.proj((self.attn_drop(weights) @ v).transpose(1, 2).reshape(n, tokens, dim)))


@of_timm("timm.layers.norm")
class LayerNorm(nn.LayerNorm):
    def forward(self, x):
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)


@of_timm("timm.layers.norm")
class LayerNorm2d(nn.LayerNorm):
    def forward(self, x):
        y = F.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps)
        return y.permute(0, 3, 1, 2)


@of_timm("timm.layers.norm_act")
class BatchNormAct2d(nn.BatchNorm2d):
    def __init__(self, channels, act):
        super().__init__(channels)
        self.drop, self.act = nn.Identity(), act

    def forward(self, x):
        return self.act(self.drop(super().forward(x)))


@of_timm("timm.layers.layer_scale")
class LayerScale(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.gamma, self.inplace = nn.Parameter(torch.ones(dim)), True

    def forward(self, x):
        return x.mul_(self.gamma) if self.inplace else x * self.gamma


class Block(nn.Module):
    def __init__(self, dim, **options):
        super().__init__()
        self.norm, self.attn, self.scale = LayerNorm(dim), Attention(dim, 2, **options), LayerScale(dim)

    def forward(self, x, attn_mask=None):
        return x + self.scale(self.attn(self.norm(x), attn_mask=attn_mask, is_causal=False))


@of_timm("timm.models.vision_transformer", "VisionTransformer")
class Transformer(nn.Module):
    """Its forward asks what no symbol can answer, so that its constants are known by name alone."""

    def __init__(self, **options):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 4, 4), BatchNormAct2d(8, nn.SiLU(inplace=True)), LayerNorm2d(8))
        self.cls_token, self.reg_token = nn.Parameter(torch.zeros(1, 1, 8)), None
        self.pos_embed = nn.Parameter(torch.zeros(1, 5, 8))
        self.blocks, self.head = nn.Sequential(Block(8, **options), Block(8, **options)), nn.Linear(8, 3)

    def forward(self, x):
        if not x.isfinite().all():
            raise ValueError
        x = self.stem(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed
        return self.head(self.blocks(x)[:, 0])


@pytest.fixture
def x():
    return torch.rand(2, 3, 8, 8, dtype=torch.float64)


def transformer(**options):
    torch.manual_seed(1)
    model = Transformer(**options).double().eval()
    with torch.no_grad():
        model.stem[1].running_mean.normal_()
        for parameter in model.parameters():
            parameter.normal_()
    return model


def test_same_logits(x, assert_close):
    plain = transformer(drop=0.1)
    model, report = bcosify(plain, b=1, biases="keep")
    assert_close(model(x), plain(x), tolerance=1e-11)
    into = {e.kind: e.into for e in report.of("replaced")}
    assert into == {
        "Conv2d": "EncodedConv2d",
        "BatchNormAct2d": "Sequential",
        "SiLU": "SiLU",
        "LayerNorm2d": "PositionNorm2d",
        "LayerNorm": "LayerNorm",
        "Attention": "SelfAttention",
        "Linear": "BcosLinear",
    }
    attention = model.network.blocks[0].attn
    assert attention.dropout == 0.1
    assert [type(m).__name__ for m in attention.to_out] == ["BcosLinear", "Dropout"]


@pytest.mark.parametrize("biases", ["drop", "keep"])
def test_complete(x, biases):
    model, _ = bcosify(transformer(), biases=biases)
    found = explain(model, x)
    assert (found.completeness_error <= 1e-12).all()
    assert (found.remainder.abs() > 1e-6).all()  # token and positions
    model.train()(x).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_refused():
    with pytest.raises(ValueError, match=r"^blocks\.0\.attn: Attention cannot be converted: it normalises queries"):
        bcosify(transformer(normed=True))
    other = transformer()
    other.blocks[1].attn.qkv = nn.Linear(8, 12)
    with pytest.raises(ValueError, match=r"^blocks\.1\.attn: Attention cannot be converted: its heads have features"):
        bcosify(other)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("resnet18", {}),
        ("vgg11_bn", {}),
        ("densenet121", {}),
        ("convnext_atto", {}),
        ("vit_tiny_patch16_224", {"img_size": 64}),
        ("deit3_small_patch16_224", {"img_size": 64}),
    ],
)
def test_timms_own(name, options):
    plain = pytest.importorskip("timm").create_model(name, num_classes=5, **options).double().eval()
    x = torch.rand(2, 3, 64, 64, dtype=torch.float64)
    model, _ = bcosify(plain, b=1, biases="keep", pooling="keep")
    expected = plain(x)
    assert (model(x) - expected).abs().max() <= 1e-10 * expected.abs().max()
    assert (explain(bcosify(plain)[0], x).completeness_error <= 1e-11).all()
