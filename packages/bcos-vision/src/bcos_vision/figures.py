"""Pictures of explanations and scores; drawn without a display, and without pyplot's global state."""

import pathlib
from collections.abc import Sequence

import numpy as np
import torch
from bcos_core import Explanation, explain
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from .data import to_unit_range
from .models import ImageClassifier

_RIGHT, _WRONG = "#1a7f37", "#c4302b"
_HEAT = "RdBu_r"
_GREY_GROUND = "#a9c9e8"  # under a grey explanation: white would hide the white that the network looks for


def draw_test_explanations(
    model: ImageClassifier,
    images: Tensor,
    labels: Tensor,
    classes: Sequence[str],
    path: pathlib.Path,
    *,
    title: str,
) -> None:
    """Draw images, their explanations for the predicted class and, where that is wrong, for the true class.

    Args:
        model: The classifier, in float32 on any device.
        images: Bytes, shape (N, C, H, W).
        labels: True classes, shape (N,).
        classes: Names of the classes.
        path: PNG to write.
        title: First line of the picture.
    """
    x = to_unit_range(images.to(next(model.parameters()).device))
    predicted = explain(model, x)
    wrong = (predicted.target.cpu() != labels).nonzero()[:, 0]
    right = (predicted.target.cpu() == labels).nonzero()[:, 0]
    panels = 3 if _has_colours(model) else 2
    rows_right = -(-len(right) // 4)
    per_wrong = 1 + 2 * (panels - 1)
    rows_wrong = -(-len(wrong) // 2)
    height = 1.38 * rows_right + 1.6 * rows_wrong + 1.2
    figure = Figure(figsize=(1.15 * 4 * panels + 1, height), layout="constrained")
    parts = figure.subfigures(
        2 if len(wrong) else 1,
        1,
        height_ratios=[1.38 * rows_right + 0.3, 1.6 * rows_wrong + 0.3] if len(wrong) else None,
        squeeze=False,
    )[:, 0]
    figure.suptitle(title, fontsize=12, fontweight="bold")
    parts[0].suptitle("predicted right", fontsize=10, color=_RIGHT)
    _draw_blocks(parts[0], 4, panels, [(x, labels, classes, predicted, None, int(i)) for i in right])
    if len(wrong):
        of_truth = explain(model, x, labels)
        parts[1].suptitle(
            "predicted wrong: first why the predicted class, then what speaks for the true one",
            fontsize=10,
            color=_WRONG,
        )
        _draw_blocks(parts[1], 2, per_wrong, [(x, labels, classes, predicted, of_truth, int(i)) for i in wrong])
    _caption(figure, predicted.weights.shape[1])
    figure.savefig(path, dpi=130)


def draw_explanation(
    image: Tensor,
    explanation: Explanation,
    classes: Sequence[str],
    path: pathlib.Path,
    *,
    title: str,
) -> None:
    """Draw one image and its explanation large, with the classes that scored highest.

    Args:
        image: In [0, 1], shape (C, H, W).
        explanation: Of this image alone (N = 1).
        classes: Names of the classes.
        path: PNG to write.
        title: First line of the picture.
    """
    colours = explanation.weights.shape[1] in (2, 6)
    figure = Figure(figsize=(4 * (3 + colours), 4.6), layout="constrained")
    axes = list(figure.subplots(1, 3 + colours))
    _show_image(axes.pop(0), image, "what it sees")
    if colours:
        _show_rgba(axes.pop(0), explanation, 0, "why: colours that drive the logit")
    _show_heat(axes[0], explanation, 0, "")
    logit = float(explanation.logits[0, explanation.target[0]])
    total = float(explanation.contributions[0].sum())
    rest = float(explanation.remainder[0])
    axes[0].set_title(f"pixels {total:+.2f}, constants {rest:+.2f}: logit {logit:+.2f}", fontsize=10)
    probabilities = explanation.logits[0].sigmoid()
    top = probabilities.topk(min(5, len(classes)))
    names = [classes[i] for i in top.indices.tolist()]
    colour = [_RIGHT if i == explanation.target[0] else "#8c959f" for i in top.indices]
    axes[1].barh(range(len(names))[::-1], top.values.tolist(), color=colour)
    axes[1].set_yticks(range(len(names))[::-1], names)
    axes[1].set_xlim(0, 1)
    axes[1].set_title("probability (sigmoid of the logit)", fontsize=10)
    axes[1].spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=12, fontweight="bold")
    _caption(figure, explanation.weights.shape[1])
    figure.savefig(path, dpi=130)


def draw_confusion(confusion: Tensor, classes: Sequence[str], path: pathlib.Path, *, title: str) -> None:
    """Draw a confusion matrix: rows are true classes, columns predicted ones; counts where they can be read."""
    k = len(classes)
    side = float(np.clip(0.45 * k + 2, 4, 16))
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    share = confusion / confusion.sum(1, keepdim=True).clamp(min=1)
    axes.imshow(share.numpy(), cmap="Blues", vmin=0, vmax=1)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if k <= 30:
        axes.set_xticks(range(k), classes, rotation=90 if max(map(len, classes)) > 2 else 0)
        axes.set_yticks(range(k), classes)
        for i in range(k):
            for j in range(k):
                if count := int(confusion[i, j]):
                    axes.text(
                        j,
                        i,
                        str(count),
                        ha="center",
                        va="center",
                        fontsize=8,
                        color="white" if share[i, j] > 0.5 else "black",
                    )
    axes.set_title(title, fontsize=11)
    figure.savefig(path, dpi=130)


_Block = tuple[Tensor, Tensor, Sequence[str], Explanation, Explanation | None, int]


def _draw_blocks(figure: object, columns: int, panels: int, blocks: list[_Block]) -> None:
    """Blocks of panels, ``columns`` of them side by side."""
    rows = max(1, -(-len(blocks) // columns))
    axes = figure.subplots(rows, columns * panels, squeeze=False)  # type: ignore[attr-defined]
    for cell in axes.flat:
        cell.set_axis_off()
    for k, (x, labels, classes, predicted, of_truth, i) in enumerate(blocks):
        row, first = axes[k // columns], k % columns * panels
        cells = list(row[first : first + panels])
        truth, answer = classes[int(labels[i])], classes[int(predicted.target[i])]
        _show_image(cells.pop(0), x[i], truth if of_truth is None else f"is {truth}", None)
        probability = float(predicted.logits[i, predicted.target[i]].sigmoid())
        pairs = [(predicted, f"{answer} ({probability:.0%})", _RIGHT if of_truth is None else _WRONG)]
        if of_truth is not None:
            probability = float(of_truth.logits[i, labels[i]].sigmoid())
            pairs.append((of_truth, f"{truth} ({probability:.0%})", "black"))
        for explanation, text, colour in pairs:
            if explanation.weights.shape[1] in (2, 6):
                _show_rgba(cells.pop(0), explanation, i, text, colour)
                text = f"sum {float(explanation.contributions[i].sum()):+.1f}"
                colour = "black"
            _show_heat(cells.pop(0), explanation, i, text, colour)


def _show_image(axes: Axes, image: Tensor, title: str, colour: str | None = None) -> None:
    picture = image.float().cpu().permute(1, 2, 0).numpy()
    axes.imshow(picture if picture.shape[2] == 3 else picture[..., 0], cmap="gray", vmin=0, vmax=1)
    _finish(axes, title, colour)


def _show_rgba(axes: Axes, explanation: Explanation, i: int, title: str, colour: str | None = None) -> None:
    side = explanation.weights.shape[-1]
    picture = explanation.to_rgba(smooth=1 if side < 64 else 5)[i]
    axes.set_facecolor(_GREY_GROUND if explanation.weights.shape[1] == 2 else "white")
    axes.imshow(picture.permute(1, 2, 0).clamp(0, 1).cpu().numpy())
    _finish(axes, title, colour)


def _show_heat(axes: Axes, explanation: Explanation, i: int, title: str, colour: str | None = None) -> None:
    heat = explanation.contribution_map[i].float().cpu()
    limit = float(torch.quantile(heat.abs().flatten(), 0.995)) or 1.0
    axes.imshow(heat.numpy(), cmap=_HEAT, vmin=-limit, vmax=limit)
    _finish(axes, title, colour)


def _finish(axes: Axes, title: str, colour: str | None) -> None:
    axes.set_axis_on()
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color("#d0d7de")
    axes.set_title(title, fontsize=9, color=colour or "black", pad=3)


def _caption(figure: Figure, encoded_channels: int) -> None:
    colours = {
        2: "White and black: ink and gap that speak for the class, faint on the blue ground where there is little.",
        6: "Colour: what the network looks for there, opaque where it speaks for the class.",
    }
    heat = "Heat map: red speaks for the class, blue against it; the sum over pixels plus constants is the logit."
    figure.supxlabel("   ".join(filter(None, (colours.get(encoded_channels), heat))), fontsize=8, color="#57606a")


def _has_colours(model: ImageClassifier) -> bool:
    return model.description["variant"] == "bcos"
