"""Classifiers and their explanations as files that run where this project is not installed: torch.export and ONNX.

The graphs hold PyTorch's and ONNX's own operators only. That of an explanation is the network and its backward pass:
in explanation mode the network is linear, so each backward operator is the transpose of a forward one, and is written
as such.
"""

# ruff: noqa: ARG001 - the transposes take what the schemas of their operators say

import copy
import importlib.util
import json
import pathlib
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.export._trace
from bcos_core import explain
from bcos_core.functional import written_out
from bcos_core.run.error import InputError
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram, default_decompositions
from torch.nn.attention import SDPBackend, sdpa_kernel

from .models import ImageClassifier

TOLERANCE = 1e-4
"""Largest relative error against eager that a file may have."""

TARGETS = ("predicted", "given")
"""Whose logit an exported explanation is of: the predicted class's, or that of a second input."""

INPUTS = {
    "images": "float32 (batch, channels, height, width), in [0, 1], not standardised",
    "target": "int64 (batch): the class to explain of each image",
}
OUTPUTS = {
    "logits": "float32 (batch, classes)",
    "contributions": "float32 (batch, encoded channels, height, width): to the explained logit, of the encoded images",
    "remainder": "float32 (batch): what no pixel is responsible for; with the contributions it adds up to the logit",
}

_aten = torch.ops.aten


@dataclass(frozen=True)
class Exported:
    """What was written, and how far it is from eager."""

    path: pathlib.Path
    inputs: dict[str, str]
    """What each input is, by name."""
    outputs: dict[str, str]
    """What each output is, by name."""
    errors: dict[str, float]
    """By what ran it ("torch", "onnxruntime"): the largest difference from eager, relative to the largest value."""


def export_program(
    model: ImageClassifier, *, image_size: tuple[int, int], explanation: bool = False, target: str = "predicted"
) -> ExportedProgram:
    """A classifier, or the pair (logits, contributions), as a graph of PyTorch's own operators.

    The graph takes images in [0, 1] of shape (N, C, H, W), any N, in float32 on a CPU, and with target "given" a second
    input, the classes to explain, integers of shape (N,). It returns a dict: "logits" (N, K) and, with an explanation,
    "contributions" (N, E, H, W) of the encoded images and "remainder" (N,), as :func:`bcos_core.explain` has them.

    Args:
        model: The classifier; left as it is.
        image_size: Height and width of the images.
        explanation: Whether the graph explains, too.
        target: One of :data:`TARGETS`.

    Raises:
        InputError: If the target is unknown, or the network holds what has no exportable transpose.

    Example:
        >>> import bcos_vision
        >>> model = bcos_vision.create_model("resnet20", num_classes=10, in_channels=1)
        >>> program = export_program(model, image_size=(8, 8))
        >>> program.module()(torch.rand(3, 1, 8, 8))["logits"].shape
        torch.Size([3, 10])
    """
    if target not in TARGETS:
        raise InputError(f'target: expected one of {", ".join(TARGETS)}, got "{target}"')
    graph = (_Explainer if explanation else _Predictor)(_portable(model))
    example: tuple[Tensor, ...] = (torch.rand(2, model.in_channels, *image_size),)
    if explanation and target == "given":
        example += (torch.zeros(2, dtype=torch.long),)
    with written_out(), sdpa_kernel(SDPBackend.MATH):  # a fused attention has no transpose to export
        # torch.export.export traces above autograd, where a backward pass cannot be recorded; this is the same below it
        program = torch.export._trace._export(
            graph,
            example,
            dynamic_shapes=tuple({0: Dim("batch")} for _ in example),
            strict=False,
            pre_dispatch=False,
        )
    program = program.run_decompositions({**default_decompositions(), **_TRANSPOSES})
    for node in program.graph.nodes:
        # what else it holds is long, and names files of the machine that exported
        node.meta = {name: value for name, value in node.meta.items() if name == "val"}
    targets = {n.target for n in program.graph.nodes if isinstance(n.target, torch._ops.OpOverload)}
    if left := sorted(str(t) for t in targets if t.namespace != "aten" or "backward" in t.name()):
        raise InputError(f"model: cannot be exported, there is no portable form of {', '.join(left)}")
    return program


def export_file(
    model: ImageClassifier,
    path: pathlib.Path,
    *,
    image_size: tuple[int, int],
    explanation: bool = False,
    target: str = "predicted",
    classes: Sequence[str] = (),
) -> Exported:
    """Write what :func:`export_program` makes as a file, and check that file against eager on random images.

    The name decides the format: ``.pt2`` is for ``torch.export.load``, ``.onnx`` for any ONNX runtime. The file says
    what it is (classes, image size, encoding, inputs, outputs): in ``description.json``, an extra file of the ``.pt2``,
    or in the ONNX metadata, each value as JSON. Where onnxruntime is not installed, of an ONNX file only the graph
    that was translated is checked.

    Args:
        model: The classifier; left as it is.
        path: File to write, in a folder that exists; an older file is replaced only by one that is right.
        image_size: Height and width of the images.
        explanation: Whether the file explains, too.
        target: One of :data:`TARGETS`.
        classes: Names of the logits.

    Raises:
        InputError: As :func:`export_program`; or if the name ends otherwise, the libraries for ONNX are missing, or the
            file is further than :data:`TOLERANCE` from eager.
    """
    if path.suffix not in _WRITERS:
        raise InputError(f"path: expected a file name that ends in {' or '.join(_WRITERS)}, got {path}")
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if path.suffix == ".onnx" and missing:
        raise InputError(f"ONNX files need {' and '.join(missing)}: install bcos-vision[export]")
    program = export_program(model, image_size=image_size, explanation=explanation, target=target)
    inputs = dict(list(INPUTS.items())[: 1 + (explanation and target == "given")])
    outputs = dict(list(OUTPUTS.items())[: 3 if explanation else 1])
    description = {
        "model": model.description,
        "classes": list(classes),
        "image_size": list(image_size),
        "encoding": f"{model.encoding}, inside the file",
        "inputs": inputs,
        "outputs": outputs,
    }
    errors = {}
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        written = pathlib.Path(folder) / path.name
        for runtime, run in _WRITERS[path.suffix](program, description, written).items():
            errors[runtime] = error = _largest_error(model, run, image_size, list(inputs))
            if not error <= TOLERANCE:  # true for NaN as well
                raise InputError(
                    f"{path}: not written, {runtime} is {error:.1e} from eager (relative to the largest value),"
                    f" at most {TOLERANCE:.0e} is expected"
                )
        written.replace(path)
    return Exported(path, inputs, outputs, errors)


class _Predictor(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"logits": self.model(images)}


class _Explainer(_Predictor):
    def forward(self, images: Tensor, target: Tensor | None = None) -> dict[str, Tensor]:
        found = explain(self.model, images, target)
        return {"logits": found.logits, "contributions": found.contributions, "remainder": found.remainder}


def _portable(model: ImageClassifier) -> ImageClassifier:
    """A copy in evaluation, in float32 on a CPU, its filters in the layout that every runtime has."""
    frozen = copy.deepcopy(model).eval().requires_grad_(False)  # what a file answers is no longer to be trained
    return frozen.to("cpu", torch.float32).to(memory_format=torch.contiguous_format)


# ---- Backward operators as transposes of forward ones ----


def _convolution_backward(
    grad: Tensor,
    x: Tensor,
    weight: Tensor,
    bias_sizes: object,
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    transposed: bool,
    output_padding: list[int],
    groups: int,
    output_mask: list[bool],
) -> Any:
    if output_mask[1] or output_mask[2]:  # the gradient of a filter is no transpose
        return NotImplemented
    if not output_mask[0]:
        return None, None, None
    # what the strided window left over at the far edge
    rest = [
        0
        if transposed
        else x.shape[2 + i]
        - ((grad.shape[2 + i] - 1) * stride[i] - 2 * padding[i] + dilation[i] * (weight.shape[2 + i] - 1) + 1)
        for i in range(len(stride))
    ]
    return _aten.convolution(grad, weight, None, stride, padding, dilation, not transposed, rest, groups), None, None


def _avg_pool2d_backward(
    grad: Tensor,
    x: Tensor,
    kernel_size: list[int],
    stride: list[int],
    padding: list[int],
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: int | None,
) -> Any:
    kernel, stride, padding = _pair(kernel_size), _pair(stride or kernel_size), _pair(padding)
    rest = [(x.shape[2 + i] + 2 * padding[i] - kernel[i]) - (grad.shape[2 + i] - 1) * stride[i] for i in range(2)]
    if min(rest) < 0:  # ceil_mode let a window hang over
        return NotImplemented
    channels = x.shape[1]
    window = grad.new_ones(channels, 1, *kernel)
    if divisor_override is not None or count_include_pad or not any(padding):
        grad = grad / (divisor_override or kernel[0] * kernel[1])
    else:
        grad = grad / _aten.convolution(
            x.new_ones(1, 1, *x.shape[2:]), window[:1], None, stride, padding, [1, 1], False, [0, 0], 1
        )
    return _aten.convolution(grad, window, None, stride, padding, [1, 1], True, rest, channels)


def _adaptive_avg_pool2d_backward(grad: Tensor, x: Tensor) -> Any:
    if any(x.shape[2 + i] % grad.shape[2 + i] for i in range(2)):  # windows of different sizes
        return NotImplemented
    kernel = [x.shape[2 + i] // grad.shape[2 + i] for i in range(2)]
    if kernel == [1, 1]:
        return grad.clone()
    return _avg_pool2d_backward(grad, x, kernel, kernel, [0, 0], False, True, None)


def _max_pool2d_backward(
    grad: Tensor,
    x: Tensor,
    kernel_size: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    ceil_mode: bool,
    indices: Tensor,
) -> Tensor:
    return x.new_zeros(x.shape).flatten(2).scatter_add(2, indices.flatten(2), grad.flatten(2)).view(x.shape)


def _pair(value: list[int]) -> list[int]:
    return [value[0], value[-1]]


_TRANSPOSES: dict[Any, Callable] = {
    _aten.convolution_backward.default: _convolution_backward,
    _aten.max_pool2d_with_indices_backward.default: _max_pool2d_backward,
    _aten.avg_pool2d_backward.default: _avg_pool2d_backward,
    _aten._adaptive_avg_pool2d_backward.default: _adaptive_avg_pool2d_backward,
}


# ---- Files ----

_Run = Callable[..., dict[str, Tensor]]


def _write_pt2(program: ExportedProgram, description: dict[str, Any], path: pathlib.Path) -> dict[str, _Run]:
    torch.export.save(program, path, extra_files={"description.json": json.dumps(description)})
    return {"torch": torch.export.load(path).module()}


def _write_onnx(program: ExportedProgram, description: dict[str, Any], path: pathlib.Path) -> dict[str, _Run]:
    inputs, outputs = description["inputs"], description["outputs"]
    translated = torch.onnx.export(
        program,
        input_names=list(inputs),
        output_names=list(outputs),
        dynamic_shapes=[{0: "batch"}, *({} for _ in range(1, len(inputs)))],  # names the dimension, which all share
        verbose=False,
    )
    assert translated is not None
    for node in translated.model.graph:
        node.metadata_props.clear()  # PyTorch's notes on its own graph
    for value in (*translated.model.graph.inputs, *translated.model.graph.outputs):
        value.doc_string = {**inputs, **outputs}[str(value.name)]
    translated.model.metadata_props.update({name: json.dumps(value) for name, value in description.items()})
    translated.save(path, external_data=False)
    if importlib.util.find_spec("onnxruntime") is None:
        return {"torch": program.module()}
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])

    def run(*images_and_target: Tensor) -> dict[str, Tensor]:
        feed = {name: x.numpy() for name, x in zip(inputs, images_and_target, strict=True)}
        found = session.run(list(outputs), feed)
        return {name: torch.from_numpy(values) for name, values in zip(outputs, found, strict=True)}

    return {"torch": program.module(), "onnxruntime": run}


_WRITERS = {".pt2": _write_pt2, ".onnx": _write_onnx}


def _largest_error(model: ImageClassifier, run: _Run, image_size: tuple[int, int], inputs: list[str]) -> float:
    """The largest difference from eager on random images, relative to the largest value; in two batch sizes."""
    model = _portable(model)
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for n in (1, 3):
        images = torch.rand(n, model.in_channels, *image_size, generator=generator)
        given = [torch.arange(n) % model.num_classes] if "target" in inputs else []
        found = run(images, *given)
        if len(found) == 1:
            expected = {"logits": model(images)}
        else:  # which of two equal logits is the larger is a matter of rounding: explain the one that was chosen
            explained = explain(model, images, given[0] if given else found["logits"].argmax(1))
            expected = {name: getattr(explained, name) for name in found}
        for name, value in expected.items():
            scale = expected["logits" if name == "remainder" else name].abs().max()  # a remainder may be zero
            worst = max(worst, float((found[name] - value).abs().max() / scale.clamp(min=1e-30)))
    return worst
