"""``bcos-vision check``: whether a model's explanations are exact, and which of its modules are at fault if not."""

import difflib
import importlib
import os
import pathlib
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bcos_core.run.command import CommandParser
from bcos_core.run.error import InputError, unknown_name

from .model_option import add_model_options, choose_model

if TYPE_CHECKING:
    from bcos_core.explanation import Explanation, ModuleExactness
    from torch import Tensor, nn

MOST_MODULES = 20
"""At fault, that are listed."""

DESCRIPTION = """Check that a model's explanations are exact: that contributions and remainder add up to the logit.
Where they do not, list the modules at fault, and by how much what each computes by itself does not add up: relative to
its answer, as 0.5 for half of it. The exit code is 0 if the model is exact and 1 if not."""


@dataclass(frozen=True)
class _Subject:
    """What is checked."""

    name: str
    model: "nn.Module"
    shape: tuple[int, ...] | None
    """Of one of its inputs; None if nothing says."""
    resize: int | None = None
    untrained: bool = False


def check(argv: Sequence[str]) -> None:
    parser = CommandParser(prog="bcos-vision check", description=DESCRIPTION)
    parser.add_argument(
        "source",
        metavar="MODEL",
        type=str,
        nargs="?",
        default=None,
        help="a run's id, a model file, a name of `bcos-vision models` (untrained, with --variant), or "
        "package.module:factory, a function of yours that returns an nn.Module",
    )
    add_model_options(parser)
    parser.add_argument("--images", metavar="FILE", nargs="+", type=str, default=None, help="instead of random ones")
    parser.add_argument("--shape", metavar="C,H,W", type=str, default=None, help="of an image: 3,32,32")
    parser.add_argument("--num_images", type=int, default=2, help="random images, uniform in [0, 1]")
    parser.add_argument("--seed", type=int, default=0, help="of what is random: images, probes, untrained weights")
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32", help="arithmetic")
    options = parser.parse_args(list(argv))
    shape = None if options.shape is None else _parse_shape(parser, options.shape)
    if options.num_images < 1:
        parser.error(f"--num_images: expected at least 1, got {options.num_images}")
    subject = _find(options)

    import torch
    from bcos_core.explanation import check_exactness, explain
    from bcos_core.explanation.exactness import THRESHOLDS

    dtype = getattr(torch, options.dtype)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    x = _inputs(options, subject, shape).to(device, dtype)
    model = subject.model.to(device, dtype).eval()
    _try_forward(subject.name, model, x)
    if subject.untrained:
        _leave_initial_values(model, x)
    try:
        explanation = explain(model, x)
        modules = check_exactness(model, x, seed=options.seed)
    except (ValueError, RuntimeError) as error:
        raise InputError(f"{subject.name}: cannot be explained ({_say(error)})") from error
    at_fault = sorted((m for m in modules if m.breaks), key=lambda m: -m.error)
    error = float(explanation.completeness_error.max())
    exact = not at_fault and error <= THRESHOLDS[dtype]
    inputs = f"{len(x)} {'random ' * (options.images is None)}image{'s' * (len(x) > 1)}"
    size = "x".join(map(str, x.shape[1:]))
    print(
        f"{subject.name}: {'exact' if exact else 'not exact'}, completeness error {error:.1e}, remainder share "
        f"{_remainder_share(explanation):.0%} ({len(modules)} modules, {inputs} {size}, {options.dtype})"
    )
    _print_table(at_fault)
    if not exact and not at_fault:
        print(
            "  no module is at fault: rounding adds up (see --dtype float64), or it is not known to which image a\n"
            "  constant belongs (see --num_images 1)"
        )
    if silent := [m for m in modules if m.state == "silent"]:
        more = f" and {len(silent) - 1} more" * (len(silent) > 1)
        print(f"  not seen: {_place(silent[0])}{more} answered zeros alone")
    if explanation.inputs.any() and not explanation.contributions.any():
        print("  all contributions are 0: they add up, and explain nothing")
    if not exact:
        raise SystemExit(1)


def _parse_shape(parser: CommandParser, text: str) -> tuple[int, ...]:
    if not re.fullmatch(r"[1-9]\d*(,[1-9]\d*)*", text):
        parser.error(f'--shape: expected positive integers separated by commas, as in 3,32,32; got "{text}"')
    return tuple(map(int, text.split(",")))


def _find(options: Any) -> _Subject:
    """The model that the positional argument or the options name.

    Raises:
        InputError: If none or two are named, or what is named cannot be found.
    """
    source: str | None = options.source
    if sum(given is not None for given in (source, options.run, options.model_file)) != 1:
        raise InputError("give one of MODEL, --run RUN_ID and --model_file FILE")
    if source is not None and (pathlib.Path(source).is_file() or pathlib.Path(source).suffix in _ENDINGS):
        options.model_file = source
    elif source is not None:
        for option in ("model", "class_names"):
            if getattr(options, option) is not None:
                raise InputError(f"--{option}: belongs to --model_file")
        if ":" in source:
            return _Subject(source, _call_factory(source), None)
        from bcos_vision.models import aliases, architecture, create_model, list_models

        if source in list_models() or source in aliases():
            import torch

            torch.manual_seed(options.seed)
            model = create_model(source, num_classes=10, variant=options.variant)
            side = architecture(source).image_size
            name = f"{source} ({model.description['variant']}, untrained)"
            return _Subject(name, model, (3, side, side), untrained=True)
        if not re.fullmatch("[0-9a-f]{4,32}", source):
            raise unknown_name("model", source, [*list_models(), *aliases()])
        options.run = source
    trained = choose_model(options, name_column=-1).trained
    name = options.model_file or f"run {options.run}"
    return _Subject(name, trained.model, (trained.model.in_channels, *trained.image_size), trained.resize)


_ENDINGS = (".safetensors", ".pth", ".pt", ".bin")


def _leave_initial_values(model: "nn.Module", x: "Tensor") -> None:
    """Move gains, biases and statistics from the values at which they do nothing."""
    import torch
    from bcos_core.nn import BatchNormUncentered2d
    from torch import nn

    norms = [m for m in model.modules() if isinstance(m, (nn.BatchNorm2d, BatchNormUncentered2d))]
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.uniform_(-0.1, 0.1)
            elif parameter.dim() == 1 or name.endswith("layer_scale"):
                parameter.uniform_(0.5, 1.5)
        for norm in norms:
            norm.train().momentum = 1.0
        model(torch.rand_like(x[:1].expand(4, *x.shape[1:])))  # with statistics of nothing the signal would die out
        for norm in norms:
            norm.eval().momentum = 0.1


def _call_factory(source: str) -> "nn.Module":
    """What ``module:factory`` makes, the module found from the current folder too.

    Raises:
        InputError: If it cannot be imported, has no such factory, or that raises or makes something else.
    """
    from torch import nn

    module_name, _, name = source.partition(":")
    sys.path.insert(0, os.getcwd())
    try:
        try:
            module = importlib.import_module(module_name)
        except Exception as error:  # whatever the module does
            raise InputError(f"{source}: cannot import {module_name} ({_say(error)})") from error
        if not hasattr(module, name):
            near = difflib.get_close_matches(name, [n for n, v in vars(module).items() if callable(v)], n=1, cutoff=0.5)
            hint = f'; did you mean "{near[0]}"?' if near else ""
            raise InputError(f'{source}: {module_name} has no "{name}"{hint}')
        made = getattr(module, name)
        try:
            made = made if isinstance(made, nn.Module) else made()
        except Exception as error:  # whatever the factory does
            raise InputError(f"{source}: {name}() failed ({_say(error)})") from error
    finally:
        sys.path.remove(os.getcwd())
    if not isinstance(made, nn.Module):
        raise InputError(f"{source}: expected an nn.Module from {name}(), got {type(made).__name__}")
    return made


def _inputs(options: Any, subject: _Subject, shape: tuple[int, ...] | None) -> "Tensor":
    """Images as the options say, in [0, 1]."""
    import torch

    shape = shape or subject.shape
    if shape is None:
        raise InputError(f"--shape: needed with {subject.name}, which does not say what it takes; as in 3,32,32")
    if options.images is None:
        generator = torch.Generator().manual_seed(options.seed)
        return torch.rand(options.num_images, *shape, generator=generator, dtype=torch.float64)
    if len(shape) != 3 or shape[0] not in (1, 3):
        raise InputError(f"--images: they have shape 1,H,W or 3,H,W; {subject.name} takes {','.join(map(str, shape))}")
    from bcos_vision.data import read_image, to_unit_range

    channels, height, width = shape
    read = [read_image(path, channels, (height, width), subject.resize) for path in options.images]
    return to_unit_range(torch.stack(read), torch.float64)


def _try_forward(name: str, model: "nn.Module", x: "Tensor") -> None:
    import torch

    try:
        with torch.no_grad():
            output = model(x.clone())
    except Exception as error:  # whatever a model says of an input it cannot take
        shape = ",".join(map(str, x.shape[1:]))
        raise InputError(f"--shape: {name} cannot take images of shape {shape} ({_say(error)})") from error
    if not isinstance(output, torch.Tensor) or output.dim() != 2 or len(output) != len(x):
        got = f"shape {tuple(output.shape)}" if isinstance(output, torch.Tensor) else type(output).__name__
        raise InputError(f"{name}: expected logits of shape ({len(x)}, K) for {len(x)} images, got {got}")


def _say(error: Exception) -> str:
    line = str(error).strip().partition("\n")[0]
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def _remainder_share(explanation: "Explanation") -> float:
    """How much of what adds up to the logits is the remainder."""
    remainder = explanation.remainder.abs()
    total = remainder + explanation.contributions.flatten(1).sum(1).abs()
    return float((remainder / total.clamp(min=1e-30)).mean())


def _print_table(modules: "Sequence[ModuleExactness]") -> None:
    if not modules:
        return
    shown = modules[:MOST_MODULES]
    width, kinds = (max(len("module"), *map(len, column)) for column in (map(_place, shown), (m.kind for m in shown)))
    print(f"\n  {'module':<{width}}  {'kind':<{kinds}}    error  why")
    for m in shown:
        print(f"  {_place(m):<{width}}  {m.kind:<{kinds}}  {m.error:7.1e}  {m.reason}")
    if len(modules) > len(shown):
        print(f"  ... and {len(modules) - len(shown)} more")


def _place(module: "ModuleExactness") -> str:
    return module.path or "(the model)"
