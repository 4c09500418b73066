"""The table of a conversion."""

from bcos_core.convert import ConversionReport, Converted

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
