"""``bcos-vision export``: a model, or the model with its explanations, as a file for other runtimes."""

import pathlib
from collections.abc import Sequence

from bcos_core.run.command import CommandParser
from bcos_core.run.error import InputError
from bcos_core.run.result_folder import short, writable_folder

from .model_option import add_model_options, choose_model


def export(argv: Sequence[str]) -> None:
    parser = CommandParser(prog="bcos-vision export", description="Write a model as ONNX or for torch.export.")
    add_model_options(parser)
    parser.add_argument("--out", type=str, required=True, help="file to write, .onnx or .pt2")
    parser.add_argument("--explanation", action="store_true", help="contributions and remainder beside the logits")
    parser.add_argument(
        "--target",
        choices=["predicted", "given"],
        default="predicted",
        help="with --explanation: explain the predicted class, or the one that a second input gives",
    )
    options = parser.parse_args(list(argv))
    if options.target != "predicted" and not options.explanation:
        raise InputError(f"--target {options.target}: needs --explanation")
    out = pathlib.Path(options.out)
    if out.suffix not in (".onnx", ".pt2"):
        raise InputError(f"--out: expected a file name that ends in .onnx or .pt2, got {out}")
    trained = choose_model(options, name_column=-1).trained
    writable_folder(out.parent)

    from bcos_vision.export import export_file

    written = export_file(
        trained.model,
        out,
        image_size=trained.image_size,
        explanation=options.explanation,
        target=options.target,
        classes=trained.classes,
    )
    print(f"saved {short(out)}, {out.stat().st_size / 1e6:.1f} MB")
    for kind, values in (("input", written.inputs), ("output", written.outputs)):
        for name, text in values.items():
            print(f"  {kind:<7} {name:<14} {text}")
    for runtime, error in written.errors.items():
        print(f"  checked in {runtime}: largest error {error:.1e} of the largest value")
    if out.suffix == ".onnx" and "onnxruntime" not in written.errors:
        print("  not checked in onnxruntime, which is not installed")
    print("run it:\n  " + "\n  ".join(_recipe(out, list(written.inputs))))


def _recipe(path: pathlib.Path, inputs: list[str]) -> tuple[str, str, str]:
    if path.suffix == ".pt2":
        return (
            "import torch",
            f'run = torch.export.load("{path}").module()',
            f"run({', '.join(inputs)})",
        )
    feed = ", ".join(f'"{name}": {name}' for name in inputs)
    return (
        "import onnxruntime",
        f'session = onnxruntime.InferenceSession("{path}")',
        f"session.run(None, {{{feed}}})  # NumPy arrays",
    )
