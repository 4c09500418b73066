"""``bcos-ode explain``: what drives each output of a run's model, and how exactly that is known."""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from bcos_core.run.command import CommandParser
from bcos_core.run.error import InputError
from bcos_core.run.result_folder import short, writable_folder

from .run_option import ChosenRun, choose_run
from .train import say_how_exact

_OF_DYNAMICS = ("start", "time", "view", "order", "method")
_WIDEST, _LONGEST = 8, 11  # channels of a printed table, and characters of a name in it
_MOST_TERMS, _MOST_EQUATIONS = 6, 12  # printed where no table is
_CANCELS = 4.0  # sum of |contributions| over sum of |derivatives|: 2 to 3 is usual where a loss balances a gain

DESCRIPTION = """Account for a run's model.
Of a field: the ledger (what each variable contributes to each derivative, in views J and W, beside the equations where
they are known), and an account along one trajectory, from a start of the test or from --start, up to --time:
ledger.csv, account.npz and pictures, which show the largest of many variables. Of a regression: contributions to every
prediction of the test. Of a classifier: pixels, and evidence over depth time."""


def explain(argv: Sequence[str]) -> None:
    parser = CommandParser(prog="bcos-ode explain", description=DESCRIPTION)
    parser.add_argument("--run", metavar="RUN_ID", type=str, required=True, help="the run whose model to take")
    parser.add_argument("--start", type=str, default=None, help="of a field: state to start from, as 1.0,2.5")
    parser.add_argument("--time", type=float, default=None, help="of a field: time up to which it is accounted for")
    parser.add_argument(
        "--view", choices=["J", "W"], default="J", help="of a field: whose contributions are integrated"
    )
    parser.add_argument(
        "--order",
        type=float,
        default=None,
        help="of a field: order of the products that view J divides among their factors; by default the equations', "
        "and where they are not known the network's degree (1 of bcos): a line says where contributions then cancel",
    )
    parser.add_argument(
        "--method", type=str, default="dopri5", help="of a field: torchdiffeq's solver, or rk4 and alike"
    )
    parser.add_argument("--out", type=str, default=None, help="folder to write")
    options = parser.parse_args(list(argv))
    run = choose_run(options.run)
    run.refuse_options(argv, _OF_DYNAMICS)
    out = writable_folder(pathlib.Path(options.out) if options.out else run.folder / "explanation")
    if run.task == "dynamics":
        _explain_dynamics(run, options, out)
        return
    if run.task == "regression":
        from bcos_ode.regression import check
        from bcos_ode.regression import explain as explain_regression

        run.check_data(check(run.config)[0].fingerprint)
        error = explain_regression(run.config, run.model_file, out)
        what, saved = "predictions", "contributions.csv"
    else:
        from bcos_ode.classification import explain_test, load_images

        run.check_data(load_images(run.config.data, run.config.split).fingerprint)
        error = explain_test(run.config, run.model_file, out)
        what, saved = "logits", "explanations.png"
    explains = run.task == "classification" or run.config.network.model in ("bcos", "degree")
    print(say_how_exact(explains, what, error))
    print(f"saved {short(out / saved)} and others beside it")


def _explain_dynamics(run: ChosenRun, options: Any, out: pathlib.Path) -> None:
    import numpy as np
    import torch

    from bcos_ode.dynamics import prepare
    from bcos_ode.explanation import disagreement, integrate_contributions, ledger, ledger_error, true_ledger
    from bcos_ode.figures.dynamics import draw_accounts, order_for
    from bcos_ode.model import VariableModel

    model = VariableModel.load(run.model_file)
    data, _ = prepare(run.config)
    run.check_data(data.fingerprint)
    start = torch.from_numpy(data.starts[:1]) if options.start is None else _state(options.start, model.inputs)
    times = data.times_within
    if options.time is not None:
        if not 0 < options.time < float("inf"):
            raise InputError(f"--time: expected a positive number, got {options.time}")
        times = np.linspace(0, options.time, 201)
    if not model.explains:
        ledger(model, start)  # which says why not
    order = order_for(model, data) if options.order is None else options.order
    account = None
    if options.time is not None or data.system is None or not data.system.stiff:
        of_view = order if options.view == "J" else None
        account = integrate_contributions(model, start, times, view=options.view, order=of_view, method=options.method)
    states = torch.from_numpy(data.truth).flatten(0, 1)
    ledgers = {"J": ledger(model, states, "J", order=order), "W": ledger(model, states, "W")}
    difference = disagreement(ledgers["W"], ledgers["J"])
    truth = None
    if data.system is not None and run.config.network.encoding == "constant":
        truth = true_ledger(data.system, states, model, order=order)
    _print_ledger(ledgers["J"], truth, order)
    if options.order is None and data.system is None:
        _print_hint(ledgers["J"], ledger(model, states, "J", order=order + 1), order)
    error = max(float(found.completeness_error.max()) for found in ledgers.values())
    print(f"contributions add up to the derivatives: largest error {error:.1e} over {len(states)} states, both views")
    worst = max(difference, key=lambda name: difference[name])
    print(
        f"the views W and J divide them {'differently' if difference[worst] > 0.05 else 'alike'}: up to "
        f"{difference[worst]:.0%} apart (d{worst}/dt)"
    )
    if truth is not None:
        for view in ("J", "W"):
            print(f"view {view} is {ledger_error(ledgers[view], truth).overall:.1%} from the equations' own ledger")
    draw_accounts(model, data, out, title=run.config.arm, order=order, account=account)
    _save_ledger(ledgers, truth, data.truth, out / "ledger.csv")
    saved = f"{short(out / 'ledger.csv')}"
    if account is None:
        print("\nno account along a trajectory: it is stiff, and explicit steps too many; --time takes a short one")
    else:
        _print_account(account, options.view)
        np.savez_compressed(
            out / "account.npz",
            times=account.times.numpy(),
            states=account.states[:, 0].numpy(),
            contributions=account.contributions[:, 0].numpy(),
            variables=np.array(account.variables),
            channels=np.array(account.channels),
        )
        saved += ", account.npz"
    print(f"saved {saved} and pictures beside it")


def _print_account(account: Any, view: str) -> None:
    total = account.contributions[-1, 0]
    said = f"\nfrom t = 0 to {float(account.times[-1]):g}, contributions to how far each variable went (view {view})"
    width = max(map(len, account.variables)) + 2
    if not _fits(account.variables, account.channels):
        went = (account.states[-1, 0] - account.states[0, 0]).tolist()
        rows = [(f"{v} {w:+.4g}", parts) for v, w, parts in zip(account.variables, went, total, strict=True)]
        _print_largest(said, rows, account.channels, float, "+.4g")
        print(f"they add up: largest error {float(account.completeness_error.max()):.1e}")
        return
    print(f"{said}:")
    print(" " * (width + 12) + "".join(f"{channel:>12}" for channel in account.channels) + "         sum")
    for i, variable in enumerate(account.variables):
        cells = "".join(f"{value:>+12.4g}" for value in total[i].tolist())
        went = float(account.states[-1, 0, i] - account.states[0, 0, i])
        print(f"  {variable:<{width}}{went:>+10.4g}{cells}{float(total[i].sum()):>+12.4g}")
    print(f"they add up: largest error {float(account.completeness_error.max()):.1e}")


def _state(text: str, variables: tuple[str, ...]) -> Any:
    import torch

    try:
        values = [float(word) for word in text.split(",")]
    except ValueError:
        values = []
    state = torch.tensor([values], dtype=torch.float64)
    if state.shape[1] != len(variables) or not torch.isfinite(state).all():
        raise InputError(f'--start: expected {len(variables)} finite numbers ({",".join(variables)}), got "{text}"')
    return state


def _print_hint(found: Any, higher: Any, order: float) -> None:
    """Say where most of the contributions is what others take back, and which option may divide them otherwise."""
    worst = int(found.cancellation.argmax())
    before, after = float(found.cancellation[worst]), float(higher.cancellation[worst])
    if before > _CANCELS:
        print(
            f"contributions to d{found.equations[worst]}/dt are {before:.1f} times the derivative in sum, most of them "
            f"cancel; where equations have products of {order + 1:g} variables, --order {order + 1:g} divides each "
            f"among its factors ({after:.1f} times)"
        )


def _fits(equations: Sequence[str], channels: Sequence[str]) -> bool:
    return len(channels) <= _WIDEST and max(map(len, (*equations, *channels))) <= _LONGEST


def _print_largest(
    title: str, rows: Sequence[tuple[str, Any]], channels: Sequence[str], combine: Callable[[Any], float], form: str
) -> None:
    """Print the largest terms of each row and the others together; of very many rows the first.

    Args:
        title: First line.
        rows: What each is called, and its terms (..., m).
        channels: Names of the m terms.
        combine: What is printed of a term, or a sum of them, (...).
        form: How.
    """
    print(f"{title}, the largest {min(_MOST_TERMS, len(channels))} of {len(channels)}:")
    for name, terms in rows[:_MOST_EQUATIONS]:
        values = [combine(terms[..., k]) for k in range(len(channels))]
        order = sorted(range(len(channels)), key=lambda k: -abs(values[k]))
        shown, others = order[:_MOST_TERMS], order[_MOST_TERMS:]
        texts = [f"{channels[k]} {values[k]:{form}}" for k in shown]
        if others:
            texts.append(f"{len(others)} others together {combine(terms[..., others].sum(-1)):{form}}")
        print(f"  {name}: {', '.join(texts)}")
    if len(rows) > _MOST_EQUATIONS:
        print(f"  and {len(rows) - _MOST_EQUATIONS} other variables")


def _print_ledger(found: Any, truth: Any, order: float) -> None:
    size = found.derivatives.square().mean(0).sqrt()
    said = f"contributions to each derivative, root mean square in units of its own (view J of order {order:g}"
    if truth is None and not _fits(found.equations, found.channels):
        rows = [(f"d{name}/dt", found.contributions[:, i] / size[i]) for i, name in enumerate(found.equations)]
        _print_largest(f"{said})", rows, found.channels, lambda part: float(part.square().mean().sqrt()), ".3f")
        return
    print(said + ("; in brackets the equations' own):" if truth is not None else "):"))
    width = max(map(len, found.equations)) + 4
    print(" " * (width + 2) + "".join(f"{channel:>18}" for channel in found.channels))
    for i, variable in enumerate(found.equations):
        cells = []
        for k in range(len(found.channels)):
            cell = f"{float(found.contributions[:, i, k].square().mean().sqrt() / size[i]):.3f}"
            if truth is not None:
                cell += f" ({float(truth.contributions[:, i, k].square().mean().sqrt() / size[i]):.3f})"
            cells.append(f"{cell:>18}")
        print(f"  {f'd{variable}/dt':<{width}}" + "".join(cells))


def _save_ledger(ledgers: dict[str, Any], truth: Any, states: Any, path: pathlib.Path) -> None:
    import csv

    named = {**ledgers, **({"equations": truth} if truth is not None else {})}
    first = next(iter(named.values()))
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(("view", *first.equations, "equation", *first.channels, "derivative"))
        rows = states.reshape(-1, states.shape[-1])
        for view, found in named.items():
            for i, equation in enumerate(found.equations):
                parts, derivatives = found.contributions[:, i].tolist(), found.derivatives[:, i].tolist()
                for z, part, derivative in zip(rows.tolist(), parts, derivatives, strict=True):
                    table.writerow((view, *z, f"d{equation}/dt", *part, derivative))
