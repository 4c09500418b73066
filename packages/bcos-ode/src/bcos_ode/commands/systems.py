"""``bcos-ode systems``: what can be trained without data of one's own."""

from collections.abc import Sequence

from bcos_core.run.command import CommandParser


def systems(argv: Sequence[str]) -> None:
    parser = CommandParser(prog="bcos-ode systems", description="List the systems, with their equations and constants.")
    parser.add_argument("names", nargs="*", type=str, help="systems to show; all by default")
    options = parser.parse_args(list(argv))

    from bcos_ode.systems import SYSTEMS

    for system in [SYSTEMS[name] for name in options.names or SYSTEMS]:
        print(f"\n{system.name}: {system.title}")
        for variable, terms in system.equations.items():
            first, *others = terms
            right = first + "".join(f" - {t[1:].strip()}" if t.startswith("-") else f" + {t}" for t in others)
            print(f"    {variable}' = {right}")
        constants = ", ".join(f"{name} = {value:g}" for name, value in system.parameters.items())
        unit = f" {system.time_unit}" if system.time_unit else ""
        grid = f"steps of {system.step:g}" if system.spacing == "linear" else f"logarithmic from {system.step:g}"
        print(f"    {constants}; t = 0 to {system.span:g}{unit}, {grid}{', stiff' if system.stiff else ''}")
        print(f"    {system.source}")
    if not options.names:
        print("\nhare-lynx: pelts of hare and lynx, 1900 to 1920, a real series (equations unknown)")
        print("\nnext: bcos-ode train lotka-volterra; bcos-ode train --data csv:FILE for trajectories of your own")
