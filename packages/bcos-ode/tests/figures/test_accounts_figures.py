"""Pictures of accounts: what is written and drawn in them is what was given."""

import dataclasses
import warnings

import numpy as np
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
from bcos_ode.figures.trajectories import draw_solutions
from bcos_ode.model import DataScales, create_model
from bcos_ode.systems import SYSTEMS
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.text import Text

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


@pytest.fixture(params=[2, 6, 12, 30])
def many(request):
    """A field of so many variables with long names, and trajectories of it."""
    d = request.param
    torch.manual_seed(0)
    names = [f"concentration of species {k} (mmol/L)" if k % 3 else f"_s{k}" for k in range(d)]
    z = torch.rand(3, 8, d).double() + 0.1
    flat = z.flatten(0, 1)
    return create_model(NetworkConfig(width=8), names, names, DataScales.of(flat, torch.randn_like(flat))), z


@pytest.fixture
def overlapping(monkeypatch):
    """Texts of a figure, as drawn, that cover each other or leave it."""
    drawn, draw = set(), Text.draw
    monkeypatch.setattr(Text, "draw", lambda self, *args: (drawn.add(self), draw(self, *args))[1])

    def find(figure):
        drawn.clear()
        canvas = FigureCanvasAgg(figure)
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a layout that was given up is one
            canvas.draw()
        texts = [text for text in drawn if text.get_visible() and text.get_text().strip()]
        boxes = np.array([text.get_window_extent(canvas.get_renderer()).extents for text in texts])
        low, high = boxes[:, :2], boxes[:, 2:]
        common = np.minimum(high[:, None], high) - np.maximum(low[:, None], low)
        covered = np.triu((common > 1).all(-1), 1)
        pairs = [(texts[i].get_text(), texts[j].get_text()) for i, j in np.argwhere(covered)]
        outside = (low < -1).any(1) | (high > np.array(figure.bbox.max) + 1).any(1)
        return pairs + [texts[i].get_text() for i in np.flatnonzero(outside)]

    return find


def test_no_text_covers_another(many, overlapping):
    field, z = many
    account = integrate_contributions(field, z[:1, 0], TIMES, method="rk4")
    states = z.flatten(0, 1)
    assert not overlapping(draw_ledger({"J": ledger(field, states), "W": ledger(field, states, "W")}, title="t"))
    assert not overlapping(draw_account(account, title="t"))
    assert not overlapping(draw_phase(field, z, title="t"))


def test_what_an_account_leaves_out_is_added_up(many):
    """The stacks of a panel still add up to its line."""
    field, z = many
    account = integrate_contributions(field, z[:1, 0], TIMES, method="rk4")
    figure = draw_account(account, title="t")
    _, *panels = figure.axes
    assert len(panels) == min(12, z.shape[-1])
    went = (account.states[-1, 0] - account.states[0, 0]).numpy()
    for axes in panels:
        (line, *_) = axes.lines
        half = len(axes.collections) // 2
        top, bottom = axes.collections[half - 1], axes.collections[-1]
        high = max(p[1] for p in top.get_paths()[0].vertices if p[0] == TIMES[-1])
        low = min(p[1] for p in bottom.get_paths()[0].vertices if p[0] == TIMES[-1])
        assert high + low == pytest.approx(line.get_ydata()[-1], abs=1e-12)
        assert min(abs(went - line.get_ydata()[-1])) < 1e-12
        labels = [text.get_text() for text in axes.get_legend().get_texts()]
        count = z.shape[-1] + 1  # channels
        assert len(labels) == min(count, 9) + 1
        assert (f"by {count - 8} others, together" in labels) == (count > 9)


def test_a_ledger_of_many_equations_is_a_table(many):
    field, z = many
    found = ledger(field, z.flatten(0, 1))
    axes = draw_ledger({"J": found}, title="t").axes
    size = found.contributions.square().mean(0).sqrt() / found.derivatives.square().mean(0).sqrt()[:, None]
    drawn = [torch.from_numpy(one.images[0].get_array().data).abs() for one in axes]
    if z.shape[-1] == 2:  # few have a panel each
        torch.testing.assert_close(torch.cat(drawn), size)
        return
    assert [one.get_title() for one in axes] == ["J"]
    torch.testing.assert_close(drawn[0], size)


def test_a_ledger_of_very_many_channels_sums_the_small_ones():
    torch.manual_seed(0)
    parts = torch.randn(20, 50, 51).double()
    parts[:, :, 7] *= 9
    names = tuple(f"x{k}" for k in range(50))
    found = Ledger(names, (*names, "1"), torch.ones(20, 51).double(), parts, parts.sum(-1))
    (axes,) = draw_ledger({"J": found}, title="t").axes
    drawn = axes.images[0].get_array()
    assert drawn.shape == (40, 31)
    columns = [text.get_text() for text in axes.get_xticklabels()]
    assert "x7" in columns
    assert columns[-1] == "21 others"
    kept = [(*names, "1").index(name) for name in columns[:-1]]
    rows = [names.index(text.get_text()[1:-3]) for text in axes.get_yticklabels()]
    rest = parts.sum(-1) - parts[..., kept].sum(-1)
    expected = rest.square().mean(0).sqrt() / parts.sum(-1).square().mean(0).sqrt()
    torch.testing.assert_close(torch.from_numpy(drawn.data)[:, -1].abs(), expected[rows])


def test_solutions_of_very_many_variables_show_the_worst(tmp_path):
    truth = np.random.default_rng(0).normal(size=(1, 9, 600))
    found = truth.copy()
    found[..., [5, 599]] += 1
    draw_solutions(np.arange(9.0), truth, found, [f"x{k}" for k in range(600)], tmp_path / "s.png", title="$t")
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")
