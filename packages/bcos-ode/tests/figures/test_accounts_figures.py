"""Pictures of accounts: what is written and drawn in them is what was given."""

import dataclasses

import pytest
import torch
from bcos_core.run.error import InputError
from bcos_ode.config import NetworkConfig
from bcos_ode.explanation import (
    Ledger,
    integrate_contributions,
    ledger,
    product_ledger,
    propagate,
    read_coefficients,
    true_ledger,
    true_product_ledger,
)
from bcos_ode.figures.accounts import draw_account, draw_cancellation
from bcos_ode.figures.ledger import draw_coefficients, draw_ledger, draw_products
from bcos_ode.figures.phase import draw_phase
from bcos_ode.model import DataScales, create_model
from bcos_ode.systems import SYSTEMS
from matplotlib.collections import LineCollection

LV = SYSTEMS["lotka-volterra"]
TIMES = torch.linspace(0, 1, 6).double()


@pytest.fixture(params=[1, 2])
def field(request):
    torch.manual_seed(0)
    config = NetworkConfig(width=8) if request.param == 1 else NetworkConfig(model="degree", width=8)
    scales = DataScales.of(3 * torch.rand(50, 2).double(), torch.randn(50, 2).double())
    return create_model(config, LV.variables, LV.variables, scales)


@pytest.fixture
def states():
    return 3 * torch.rand(7, 2, generator=torch.Generator().manual_seed(1)).double() + 0.1


def texts(axes):
    return [t.get_text() for t in axes.texts]


def test_a_ledger_has_its_numbers_and_errors(tmp_path):
    parts = torch.tensor([[[3.0, -4.0]], [[3.0, -4.0]]]).double()
    truth = Ledger(("x",), ("x", "1"), torch.ones(2, 2), parts, torch.tensor([[2.0], [2.0]]).double())
    found = Ledger(("x",), ("x", "1"), truth.inputs, parts + torch.tensor([0.0, 0.5]), truth.derivatives)
    figure = draw_ledger({"equations": truth, "J": found}, title="t")
    assert texts(figure.axes[0]) == ["+1.50", "-2.00", "+1.50", "-1.75", "10.0% off"]
    figure.savefig(tmp_path / "ledger.png")
    with pytest.raises(InputError, match="at least one ledger"):
        draw_ledger({}, title="t")


def test_products_and_coefficients(field, states, tmp_path):
    books = {"equations": true_ledger(LV, states, field), "J": ledger(field, states), "W": ledger(field, states, "W")}
    draw_ledger(books, title="t").savefig(tmp_path / "ledger.png")
    if field.degree == 1:
        with pytest.raises(InputError, match="two product ledgers"):
            draw_products(books["J"], books["J"], title="t")
        return
    figure = draw_products(product_ledger(field, states), true_product_ledger(LV, states, field), title="t")
    figure.savefig(tmp_path / "products.png")
    assert texts(figure.axes[2]).count("0") == 5  # x y and x, each twice, are all that dx/dt has
    coefficients = read_coefficients(field, states, LV)
    figure = draw_coefficients(coefficients, title="t")
    figure.savefig(tmp_path / "coefficients.png")
    assert texts(figure.axes[0])[6:] == ["0", "-0.900", "+1.300", "0", "0", "0"]
    assert texts(figure.axes[0])[1] == f"{coefficients.found[0, 1]:+.3f}"


def test_stacks_end_at_the_positive_and_negative_sums(field, states, tmp_path):
    account = integrate_contributions(field, states, TIMES, method="rk4")
    figure = draw_account(account, trajectory=3, title="t", time_unit="h")
    figure.savefig(tmp_path / "account.png")
    parts = account.contributions[:, 3, 1]
    heights = [path.get_extents() for c in figure.axes[2].collections for path in c.get_paths()]
    assert max(h.y1 for h in heights) == pytest.approx(float(parts.clamp(min=0).sum(-1).max()))
    assert min(h.y0 for h in heights) == pytest.approx(float(parts.clamp(max=0).sum(-1).min()))
    line = figure.axes[2].lines[0].get_ydata()
    assert line == pytest.approx((account.states[:, 3, 1] - states[3, 1]).numpy())
    assert figure.axes[2].get_xlabel() == "time (h)"
    with pytest.raises(InputError, match="expected 0 to 6, got 7"):
        draw_account(account, trajectory=7, title="t")


def test_cancellation_names_the_horizon(field, states, tmp_path):
    found = propagate(field, states[:2], TIMES)
    figure = draw_cancellation({"J": found}, title="t")
    figure.savefig(tmp_path / "cancellation.png")
    assert [line.get_ydata().tolist() for line in figure.axes[0].lines[:2]] == found.cancellation.T.tolist()
    assert figure.axes[0].get_legend().get_texts()[0].get_text() == "J: horizon of 0 of 2"
    lower = dataclasses.replace(found, cancellation=found.cancellation * torch.tensor([1.0, 1e9]))
    text = draw_cancellation({"J": lower}, title="t").axes[0].get_legend().get_texts()[0].get_text()
    assert text == "J: horizon of 1 of 2, first at 0"


def test_phase_portraits_have_every_piece_once(field, states, tmp_path):
    path = integrate_contributions(field, states, TIMES, method="rk4").states.transpose(0, 1)
    figure = draw_phase(field, path, title="t", view="W")
    figure.savefig(tmp_path / "phase.png")
    largest = ledger(field, path[:, :-1].flatten(0, 1), "W").contributions.abs()
    tied = largest.sort(-1, descending=True).values[..., 1] > 0.95 * largest.amax(-1)
    for i, axes in enumerate(figure.axes):
        drawn = [len(c.get_segments()) for c in axes.collections if isinstance(c, LineCollection)]
        winners = largest[:, i].argmax(-1)[~tied[:, i]]
        assert drawn == [int(tied[:, i].sum()), *(int((winners == k).sum()) for k in range(3))]
    with pytest.raises(InputError, match="expected two of x, y, got x, w"):
        draw_phase(field, path, title="t", plane=("x", "w"))
