"""Encodings: values against formulas, rates against autograd."""

import pytest
import torch
from bcos_ode.encoding import ConstantChannel, InverseChannels, Standardised

SCALE, LOW, HIGH = [2.0, 0.5, 3.0], [-1.0, 0.0, 2.0], [1.0, 4.0, 2.5]
ENCODINGS = {
    "constant": ConstantChannel(SCALE, 3.0),
    "scaled": ConstantChannel(SCALE, 0.0),
    "inverse": InverseChannels(LOW, HIGH),
    "standardised": Standardised(LOW, SCALE),
}


def _states(*shape):
    return torch.randn(*shape, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ENCODINGS)
def test_rates(name):
    encoding, z = ENCODINGS[name], _states().requires_grad_()
    rows = [torch.autograd.grad(c, z, retain_graph=True, materialize_grads=True)[0] for c in encoding(z)]
    torch.testing.assert_close(encoding.rates(), torch.stack(rows), rtol=1e-15, atol=0)
    # affine: the rates lead from any state to any other
    other = z + 5
    torch.testing.assert_close(encoding(other), encoding(z) + encoding.rates() @ (other - z), rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("name", ENCODINGS)
def test_channels_and_shapes(name):
    encoding = ENCODINGS[name]
    channels = encoding.channels(["x", "y", "z"])
    assert encoding(_states(4, 2)).shape == (4, 2, len(channels))
    torch.testing.assert_close(encoding(_states(4, 2))[1, 1], encoding(_states(4, 2)[1, 1]), rtol=0, atol=0)
    expected = {
        "constant": ("x", "y", "z", "1"),
        "scaled": ("x", "y", "z"),
        "inverse": ("x", "y", "z", "1 - x", "1 - y", "1 - z"),
        "standardised": ("x", "y", "z"),
    }
    assert channels == expected[name]


def test_values():
    z = torch.tensor([4.0, 1.0, 2.25], dtype=torch.float64)
    expected = {
        "constant": [2, 2, 0.75, 3],
        "scaled": [2, 2, 0.75],
        "inverse": [2.5, 0.25, 0.5, -1.5, 0.75, 0.5],
        "standardised": [2.5, 2, 0.25 / 3],
    }
    for name, values in expected.items():
        torch.testing.assert_close(ENCODINGS[name](z), torch.tensor(values, dtype=torch.float64))


def test_constants_are_copied_and_kept():
    scale = torch.ones(2, dtype=torch.float64)
    encoding = ConstantChannel(scale)
    scale += 1
    assert encoding.state_dict()["scale"].tolist() == [1, 1]
