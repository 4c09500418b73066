"""The first layer's weights: standardisation folded in, exactly, also where the input is padded."""

import re

import pytest
import torch
import torch.nn.functional as F
from bcos_core import bcosify
from bcos_core.convert.first import encoded_weight
from bcos_core.nn import InverseEncoding, Standardise
from torch import nn

MEAN, STD = [0.2, 0.5, 0.9], [0.5, 0.3, 0.7]


@pytest.fixture
def x():
    return torch.rand(2, 3, 7, 6, dtype=torch.float64)


def standardised(x, mean=MEAN, std=STD):
    mean, std = (torch.tensor(v, dtype=x.dtype).view(-1, 1, 1) for v in (mean, std))
    return (x - mean) / std


@pytest.mark.parametrize("statistics", [(None, None), (MEAN, STD)], ids=["as it is", "standardised"])
@pytest.mark.parametrize("padding", [0, 2], ids=["", "padded"])
def test_convolution(x, padding, statistics, assert_close):
    weight = torch.randn(4, 3, 3, 3, dtype=torch.float64)
    expected = F.conv2d(x if statistics[0] is None else standardised(x), weight, padding=padding)
    found = F.conv2d(torch.cat([x, 1 - x], 1), encoded_weight(weight, *statistics), padding=padding)
    assert_close(found, expected)


def test_half_is_the_papers():
    weight = torch.randn(4, 3, 3, 3)
    found = encoded_weight(weight, [0.5] * 3, [1.0] * 3)
    assert torch.equal(found, torch.cat([weight, -weight], 1) / 2)
    assert torch.equal(encoded_weight(weight), torch.cat([weight, torch.zeros_like(weight)], 1))


@pytest.mark.parametrize("mean", [None, MEAN], ids=["as it is", "standardised"])
@pytest.mark.parametrize("innermost", [False, True], ids=["blocks", "innermost"])
def test_linear(x, mean, innermost, assert_close):
    """Features in blocks of a channel each, or channels side by side."""
    weight = torch.randn(4, 3 * 7 * 6, dtype=torch.float64)
    flat = (lambda z: z.permute(0, 2, 3, 1).flatten(1)) if innermost else (lambda z: z.flatten(1))
    new = encoded_weight(weight, mean, mean and STD, innermost=3 if innermost else None)
    expected = flat(x if mean is None else standardised(x)) @ weight.T
    assert_close(flat(torch.cat([x, 1 - x], 1)) @ new.T, expected)


def test_linear_of_variables(assert_close):
    """One mean for each feature."""
    x, weight = torch.rand(5, 3, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    mean, std = (torch.tensor(v, dtype=x.dtype) for v in (MEAN, STD))
    expected = (x - mean) / std @ weight.T
    assert_close(torch.cat([x, 1 - x], 1) @ encoded_weight(weight, MEAN, STD).T, expected)


@pytest.mark.parametrize(
    ("shape", "innermost", "expected"),
    [
        ((4, 3, 3, 3), None, "one value for each of 3 channels, got 2"),
        ((4, 7), None, "one value for each of 7 features, or one for each channel, got 2"),
        ((4, 6), 3, "one value for each of 3 features, or one for each channel, got 2"),
    ],
)
def test_number_of_channels(shape, innermost, expected):
    with pytest.raises(ValueError, match=f"mean, std: expected {re.escape(expected)}"):
        encoded_weight(torch.ones(shape), [0.5] * 2, [0.5] * 2, innermost=innermost)


# ---- in networks ----


def cnn(first=None):
    first = first or nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect")
    return nn.Sequential(first, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).double()


def mlp():
    return nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(126, 5), nn.ReLU(), nn.Linear(5, 2)).double().eval()


class Branches(nn.Module):
    """The image goes two ways."""

    def __init__(self):
        super().__init__()
        self.wide, self.narrow, self.last = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 1), nn.Linear(4, 2)

    def forward(self, image, scale=1.0):
        y = self.wide(image).relu() + self.narrow(image.contiguous()) * scale
        return self.last(y.mean((2, 3)))


@pytest.mark.parametrize("model", [cnn, mlp, lambda: Branches().double()], ids=["CNN", "MLP", "branches"])
@pytest.mark.parametrize("mean", [None, MEAN], ids=["as it is", "standardised"])
def test_same_logits(model, mean, x, assert_close):
    plain = model()
    converted, report = bcosify(plain, b=1, biases="keep", mean=mean, std=mean and STD)
    assert_close(converted(x), plain(x if mean is None else standardised(x)))
    assert sum(e.into.startswith("Encoded") for e in report.entries) == (2 if isinstance(plain, Branches) else 1)


def test_own_first_layer_of_variables(assert_close):
    plain, x = nn.Linear(3, 2).double(), torch.rand(5, 3, dtype=torch.float64)
    model, report = bcosify(plain, b=1, biases="keep", mean=[0.5] * 3, std=[0.5] * 3)
    assert_close(model(x), plain(2 * x - 1))
    assert report.entries[0].path == ""
    with pytest.raises(
        ValueError, match=r"^x: the converted network takes the encoded input, .* 6 features, got shape"
    ):
        model.network(x)


def test_without_encoding(x):
    model, _ = bcosify(cnn())
    assert torch.equal(model(x), model.network(model.encode(x)))
    expected = (
        "x: the converted network takes the encoded input, [x, 1-x], here 6 channels, got shape (2, 3, 7, 6);"
        " call model(x) or model.network(model.encode(x))"
    )
    with pytest.raises(ValueError, match=re.escape(expected)):
        model.network(x)
    with pytest.raises(ValueError, match="6 channels, got shape"):
        model(model.encode(x))


class Before(nn.Module):
    """Does something to the image before the first layer sees it."""

    def __init__(self, change):
        super().__init__()
        self.first, self.last, self.norm = nn.Conv2d(3, 4, 3), nn.Linear(4, 2), nn.BatchNorm2d(3)
        self.change = change

    def forward(self, x):
        return self.last(self.first(self.change(self, x)).mean((2, 3)))


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.last = nn.Conv2d(3, 3, 1), nn.Linear(3, 2)

    def forward(self, x):
        return self.last(self.layer(self.layer(x)).mean((2, 3)))


class Around(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Conv2d(3, 3, 1)

    def forward(self, x):
        return (x + self.layer(x)).mean((2, 3))


class PadsAnew(nn.Conv2d):
    """Pads by the size of its input, as timm's Conv2dSame does, so that no forward with it can be followed."""

    def forward(self, x):
        if x.shape[-1] % 2:
            x = torch.nn.functional.pad(x, (0, 1, 0, 1))
        return super().forward(x)


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        (lambda: cnn(PadsAnew(3, 3, 3)), "0: PadsAnew cannot be converted: the image meets it first, and its forward"),
        (lambda: Before(lambda m, x: m.norm(x)), "norm: BatchNorm2d cannot be converted: it stands before the first"),
        (lambda: Before(lambda m, x: (x - 0.5) / 0.25), "model: sub() cannot be converted: it stands before the first"),
        (lambda: Before(lambda m, x: x[:, [2, 1, 0]]), "model: getitem() cannot be converted: it stands before"),
        (lambda: Before(lambda m, x: x.detach()), "model: detach() cannot be converted: it stands before"),
        (lambda: nn.Sequential(Standardise(MEAN, STD), cnn()), "0: Standardise cannot be converted: it stands before"),
        (Twice, "layer: Conv2d cannot be converted: it is used again further on"),
        (Around, "model: add() cannot be converted: it stands before the first"),
        (lambda: cnn(nn.Conv2d(3, 3, 3, groups=3)), "0: Conv2d cannot be converted: the first layer sees twice the"),
        (lambda: nn.Sequential(nn.Conv1d(3, 3, 1), nn.Flatten(), nn.Linear(3, 3)), "0: Conv1d cannot be converted: it"),
    ],
)
@pytest.mark.parametrize("strict", [True, False], ids=["strict", "lenient"])
def test_what_no_first_layer_can_see(model, expected, strict):
    with pytest.raises(ValueError, match=f"^{re.escape(expected)}") as error:
        bcosify(model(), strict=strict)
    assert "strict=False" not in str(error.value)
    assert "\n" not in str(error.value)


def test_a_later_layer_does_not_stand_in_for_the_first():
    with pytest.raises(ValueError, match=r"^0: PadsAnew cannot be converted"):  # not: of the Linear's 3 features
        bcosify(cnn(PadsAnew(3, 4, 3)), mean=MEAN, std=STD)


def test_standardisation_is_to_be_given():
    with pytest.raises(ValueError, match=re.escape("(give the mean and std of a standardisation instead)")):
        bcosify(nn.Sequential(Standardise(MEAN, STD), cnn()))


# ---- models that encode ----


class Encoding(nn.Module):
    def __init__(self, encoding, network):
        super().__init__()
        self.encoding, self.network = encoding, network

    def encode(self, x):
        return self.encoding(x)

    def forward(self, x):
        return self.network(self.encode(x))


def test_own_standardisation(x, assert_close):
    plain = Encoding(Standardise(MEAN, STD), cnn()).double()
    model, report = bcosify(plain, b=1, biases="keep")
    assert type(model) is Encoding
    assert isinstance(model.encoding, InverseEncoding)
    assert isinstance(plain.encoding, Standardise)
    assert_close(model(x), plain(x))
    assert report.entries[0].path == "network.0"
    assert report.entries[0].reason == "sees [x, 1-x]; mean and std folded into its weights; bias kept"
    with pytest.raises(ValueError, match="mean, std: the model encodes its images itself, by its Standardise"):
        bcosify(plain, mean=MEAN, std=STD)


def test_own_images_as_they_are(x, assert_close):
    plain = Encoding(nn.Identity(), cnn())
    assert_close(bcosify(plain, b=1, biases="keep")[0](x), plain(x))
    assert_close(bcosify(plain, b=1, biases="keep", mean=MEAN, std=STD)[0](x), plain(standardised(x)))


def test_own_inverse_encoding(x, assert_close):
    """The first layer sees [x, 1-x] already."""
    plain = Encoding(InverseEncoding(), cnn(nn.Conv2d(6, 6, 3, groups=2)).append(nn.Identity()))
    plain.network[4] = nn.Linear(6, 2).double()
    model, report = bcosify(plain, b=1, biases="keep")
    assert_close(model(x), plain(x))
    assert not any(e.into.startswith("Encoded") for e in report.entries)


@pytest.mark.parametrize(("encoding", "got"), [(nn.BatchNorm2d(3), "BatchNorm2d"), (None, "none")])
def test_unknown_encoding(encoding, got):
    with pytest.raises(ValueError, match=rf"^model\.encoding: expected Standardise, .* got {got}"):
        bcosify(Encoding(encoding, cnn()))


def test_description_says_that_it_is_converted(x):
    vision = pytest.importorskip("bcos_vision")
    plain = vision.create_model("resnet20", num_classes=3, variant="standard")
    model, _ = bcosify(plain, b=1.5, logit_bias=-1.0)
    assert type(model) is type(plain)
    assert "conversion" not in plain.description
    arguments = dict(model.description)
    again = vision.create_model(arguments.pop("name"), **arguments)
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.eval()(x.float()), model.eval()(x.float()))
