"""The identity between the two views."""

import pytest
import torch
from bcos_ode.config import NetworkConfig
from bcos_ode.explanation import check_views, disagreement, ledger, norm_share


def test_w_is_j_and_a_share_of_the_norms(field, states):
    # layers with B not 1 or 2 add 1e-6 to the cosine
    assert check_views(field, states) < (1e-13 if field.config.exponent in (1, 2) else 1e-4)
    layers = field.config.depth
    expected = 1 - field.degree / field.config.exponent**layers
    torch.testing.assert_close(norm_share(field, states).sum(-1), torch.full((7,), expected).double())


def test_the_share_of_two_layers_by_finite_differences(states, make):
    field = make(NetworkConfig(depth=2, width=8))
    e = field.encode(states)

    def norms(log_e):
        inside = log_e.exp()
        return (2 * inside.norm(dim=-1).log() + field.network[0](inside).norm(dim=-1).log()) / 4

    step = 1e-5 * torch.eye(3).double()
    slopes = [(norms(e.log() + h) - norms(e.log() - h)) / 2e-5 for h in step]
    torch.testing.assert_close(norm_share(field, states), torch.stack(slopes, -1).detach(), rtol=1e-7, atol=1e-9)


def test_one_layer_of_its_own_degree_has_one_view(states, make):
    for p in (2, 3):
        field = make(NetworkConfig(model="degree", depth=1, degree=p, width=8))
        gap = disagreement(ledger(field, states, "W"), ledger(field, states, "J"))
        assert max(gap.values()) < (1e-13 if p == 2 else 1e-4)


def test_the_gap_grows_with_depth_as_said(states, make):
    # W - J = (1 - 2^-L)(f ν - J): for L = 1 a half
    field = make(NetworkConfig(depth=1, width=8))
    w, j = ledger(field, states, "W"), ledger(field, states, "J")
    norms = j.derivatives[..., None] * 2 * norm_share(field, states)[:, None]
    expected = (norms - j.contributions).norm(dim=(0, 2)) / 2 / j.contributions.norm(dim=(0, 2))
    assert disagreement(w, j) == pytest.approx(dict(zip("xy", expected.tolist(), strict=True)))
    assert min(disagreement(w, j).values()) > 0.05
