"""``bcos-vision models``: what can be built, and what it costs."""

from collections.abc import Sequence

from bcos_core.run.command import CommandParser
from bcos_core.run.error import InputError


def models(argv: Sequence[str]) -> None:
    parser = CommandParser(prog="bcos-vision models", description="List the models, with ten classes.")
    parser.add_argument("--variant", choices=["bcos", "baseline", "standard"], default="bcos", help="kind of layers")
    parser.add_argument("--filter", metavar="TEXT", type=str, default="", help="only names that contain it")
    options = parser.parse_args(list(argv))

    from bcos_vision.models import aliases, list_models
    from bcos_vision.models.card import model_card

    wanted = options.filter.lower()
    names = [name for name in list_models() if wanted in name]
    others = {name: alias for name, alias in aliases().items() if wanted in name}
    if not names and not others:
        raise InputError(f'--filter: no model is called anything like "{options.filter}"')
    width = max(map(len, [*names, *others]))
    print(f"{options.variant:<{width}}  {'parameters':>12} {'multiply-adds':>15}  images")
    for name in names:
        card = model_card(name, options.variant)
        print(
            f"{name:<{width}}  {card.parameters / 1e6:>10.2f} M {card.multiply_adds / 1e6:>13.1f} M  "
            f"{card.image_size}x{card.image_size}",
            flush=True,
        )
    for name, alias in others.items():
        arguments = "".join(f" --{key} {value}" for key, value in alias.arguments.items())
        print(f"{name:<{width}}  {alias.model}{arguments}")
