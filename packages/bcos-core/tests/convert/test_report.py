"""The table of a conversion."""

import torch
from bcos_core import bcosify
from bcos_core.convert import ConversionReport, Converted
from torch import nn

ENTRIES = (
    Converted("conv1", "Conv2d", "replaced", "BcosConv2d", "bias dropped"),
    Converted("relu", "ReLU", "kept", "", "piecewise linear"),
    Converted("conv2", "Conv2d", "replaced", "BcosConv2d", "bias dropped"),
    Converted("conv3", "Conv2d", "replaced", "BcosConv2d", ""),
    Converted("", "gelu()", "refused", "", "make it a module"),
    Converted("conv4", "Conv2d", "replaced", "BcosConv2d", "bias dropped"),
)


def test_table():
    assert str(ConversionReport(ENTRIES)).splitlines() == [
        "path              kind    action    into        reason",
        "conv1 and 2 more  Conv2d  replaced  BcosConv2d  bias dropped",
        "relu              ReLU    kept                  piecewise linear",
        "conv3             Conv2d  replaced  BcosConv2d",
        "(model)           gelu()  refused               make it a module",
        "4 replaced, 1 kept, 1 refused",
    ]


def test_counts():
    report = ConversionReport(ENTRIES)
    assert report.counts == {"replaced": 4, "kept": 1, "refused": 1}
    assert report.of("refused") == (ENTRIES[4],)
    assert str(ConversionReport(())).splitlines()[-1] == "0 replaced, 0 kept, 0 refused"


def test_a_deep_network_without_norms_is_warned_of():
    """Its answers die out at B = 2, in 16 layers to zeros, which add up and say nothing."""

    def network(*, norm=False):
        layers = [(nn.Conv2d(8, 8, 3, padding=1), *[nn.BatchNorm2d(8)] * norm, nn.ReLU()) for _ in range(6)]
        modules = [module for layer in layers for module in layer]
        return nn.Sequential(nn.Conv2d(3, 8, 1), *modules, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 2))

    model, report = bcosify(network())
    (note,) = report.notes
    assert note.startswith("8 B-cos layers and no norm: at B = 2 each multiplies its answers by |cos|^1")
    assert str(report).endswith(f"note: {note}")
    plain, _ = bcosify(network(), b=1)
    images = torch.rand(2, 3, 8, 8)
    assert model(images).std(0).max() < 1e-3 * plain(images).std(0).max()
    for quiet, options in ((network(norm=True), {}), (network(), {"b": 1})):
        assert bcosify(quiet, **options)[1].notes == ()
    assert bcosify(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)))[1].notes == ()
