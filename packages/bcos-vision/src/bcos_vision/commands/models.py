"""``bcos-vision models``: what can be built, and what it costs."""

from collections.abc import Sequence

from bcos_core.run.command import CommandParser
from bcos_core.run.error import InputError


def models(argv: Sequence[str]) -> None:
    parser = CommandParser(prog="bcos-vision models", description="List the models, with ten classes.")
    parser.add_argument("--variant", choices=["bcos", "baseline", "standard"], default="bcos", help="kind of layers")
    parser.add_argument("--filter", metavar="TEXT", type=str, default="", help="only names that contain it")
    options = parser.parse_args(list(argv))

    from bcos_vision.models import architecture, list_models
    from bcos_vision.models.card import model_cards

    names = [name for name in list_models() if options.filter.lower() in name]
    if not names:
        raise InputError(f'--filter: no model is called anything like "{options.filter}"')
    width = max(map(len, names))
    print(f"{options.variant:<{width}}  {'parameters':>12} {'multiply-adds':>15}  {'input':<8} stem")
    for card in model_cards():
        if card.name in names and card.variant == options.variant:
            side, stems = f"{card.image_size}x{card.image_size}", architecture(card.name).stems
            print(
                f"{card.name:<{width}}  {card.parameters / 1e6:>10.2f} M {card.multiply_adds / 1e6:>13.1f} M  "
                f"{side:<8} {', '.join(stems)}",
                flush=True,
            )
