"""Pictures of a classifier over depth time: which pixels, and when along the depth."""

import pathlib

import torch
from bcos_core import Explanation, explain
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from torch import Tensor

from bcos_ode.classification.classifier import OdeClassifier
from bcos_ode.classification.depth import DepthEvidence, depth_evidence
from bcos_ode.classification.images import LabelledImages, to_unit_range

_RIGHT, _WRONG, _MUTED = "#1a7f37", "#c4302b", "#8c959f"
# red for, blue against; the blue is the darker one, so that a print in grey still tells strong evidence apart
_EVIDENCE = LinearSegmentedColormap.from_list("evidence", ["#0b2f6b", "#5b9bd5", "#ffffff", "#f2a07b", "#d9481c"])
_MOST_CLASSES, _MOST_WRONG, _MOST_IMAGES = 12, 4, 500


def draw_classification(
    model: OdeClassifier, images: LabelledImages, folder: pathlib.Path, *, title: str
) -> list[pathlib.Path]:
    """Draw explanations.png and, of a model with a field, depth.png; returns the files.

    Args:
        model: On the CPU.
        images: Held-out images.
        folder: Where the pictures go.
        title: First line of each.
    """
    paths = [folder / "explanations.png"]
    draw_explanations(model, images, title=title).savefig(paths[0], dpi=130)
    if model.num_evaluations:
        paths.append(folder / "depth.png")
        draw_depth(model, images, title=title).savefig(paths[-1], dpi=130)
    return paths


def draw_explanations(model: OdeClassifier, images: LabelledImages, *, title: str) -> Figure:
    """An image of each class and which of its pixels spoke for the answer; then wrong ones, explained twice.

    Args:
        model: On the CPU.
        images: Held-out images.
        title: First line.
    """
    shown = _examples(model, images)
    x = to_unit_range(images.images[shown])
    labels = images.labels[shown]
    predicted, of_truth = explain(model, x), explain(model, x, labels)
    right = [i for i in range(len(x)) if predicted.target[i] == labels[i]]
    wrong = [i for i in range(len(x)) if predicted.target[i] != labels[i]]
    rows_right, rows_wrong = -(-len(right) // 6), -(-len(wrong) // 4)
    figure = Figure(figsize=(13, 1.25 * (rows_right + rows_wrong) + 0.9), layout="constrained")
    axes = figure.subplots(rows_right + rows_wrong, 12, squeeze=False)
    for cell in axes.flat:
        cell.set_axis_off()
    for k, i in enumerate(right):  # six pairs in a row
        name = model.classes[int(labels[i])]
        image, heat = axes[k // 6, k % 6 * 2 :][:2]
        _show_image(image, x[i], f"is {name}")
        _show_heat(heat, predicted, i, f"for {name}", _RIGHT)
    for k, i in enumerate(wrong):  # four triples
        name, answer = model.classes[int(labels[i])], model.classes[int(predicted.target[i])]
        image, for_answer, for_truth = axes[rows_right + k // 4, k % 4 * 3 :][:3]
        _show_image(image, x[i], f"is {name}")
        _show_heat(for_answer, predicted, i, f"taken for {answer}", _WRONG)
        _show_heat(for_truth, of_truth, i, f"for {name}", "black")
    figure.suptitle(title, fontsize=11, fontweight="bold")
    figure.supxlabel(
        "Red pixels speak for the class, blue against it. Number: the logit, which is the sum over pixels "
        "and constants (biases, time).",
        fontsize=8,
        color="#57606a",
    )
    return figure


def draw_depth(model: OdeClassifier, images: LabelledImages, *, title: str) -> Figure:
    """Evidence over depth time, a panel for each class: of its own images, for it and for the strongest other class.

    Args:
        model: On the CPU, with a field.
        images: Held-out images.
        title: First line.
    """
    count = min(len(model.classes), _MOST_CLASSES)
    columns = min(5, count)
    rows = -(-count // columns)
    figure = Figure(figsize=(2.3 * columns, 2.1 * rows + 1), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    for k, cell in enumerate(axes.flat):
        chosen = (images.labels == k).nonzero()[:_MOST_IMAGES, 0]
        if k >= count or not len(chosen):
            cell.set_axis_off()
            continue
        x = to_unit_range(images.images[chosen])
        own = depth_evidence(model, x, k)
        rivals = own.logits.clone()
        rivals[:, k] = -torch.inf
        other = depth_evidence(model, x, rivals.argmax(1))
        _show_band(cell, other, _MUTED, "strongest other class")
        _show_band(cell, own, _RIGHT, "own class")
        cell.axhline(0, color="black", linewidth=0.6)
        cell.set_title(f"images of {model.classes[k]} ({len(chosen)})", fontsize=9)
        cell.spines[["top", "right"]].set_visible(False)
        cell.tick_params(labelsize=8)
    for cell in axes[:, 0]:
        cell.set_ylabel("evidence (logit units)", fontsize=8)
    for cell in axes[-1]:
        cell.set_xlabel("depth time", fontsize=8)
    axes[0, 0].legend(fontsize=7, frameon=False)
    figure.suptitle(title, fontsize=11, fontweight="bold")
    figure.supxlabel(
        "How far the state has come towards what the head reads in the end: at time 0 from the stem alone, at time 1 "
        "the logit (above 0: more likely than not). Line: median over images, band: 80 % of them, dots: steps.",
        fontsize=8,
        color="#57606a",
    )
    return figure


def _examples(model: OdeClassifier, images: LabelledImages) -> Tensor:
    """The first right image of each class, then a few wrong ones."""
    most = images.subset(range(min(len(images), 10 * _MOST_IMAGES)))
    with torch.no_grad():
        parts = most.images.split(_MOST_IMAGES)
        predicted = torch.cat([model(to_unit_range(part)).argmax(1) for part in parts])
    is_right = predicted == most.labels
    right = [(is_right & (most.labels == k)).nonzero()[:1, 0] for k in range(min(len(model.classes), _MOST_CLASSES))]
    return torch.cat([*right, (~is_right).nonzero()[:_MOST_WRONG, 0]])


def _show_image(axes: Axes, image: Tensor, title: str) -> None:
    pixels = image.permute(1, 2, 0).numpy()
    axes.imshow(pixels if pixels.shape[2] == 3 else pixels[..., 0], cmap="gray", vmin=0, vmax=1)
    _finish(axes, title, "black")


def _show_heat(axes: Axes, explanation: Explanation, i: int, title: str, colour: str) -> None:
    heat = explanation.contribution_map[i]
    limit = float(torch.quantile(heat.abs().flatten(), 0.995)) or 1.0
    axes.imshow(heat.numpy(), cmap=_EVIDENCE, vmin=-limit, vmax=limit)
    _finish(axes, f"{title}: {float(explanation.logit[i]):+.1f}", colour)


def _show_band(axes: Axes, found: DepthEvidence, colour: str, label: str) -> None:
    low, middle, high = torch.quantile(found.evidence, torch.tensor([0.1, 0.5, 0.9]), dim=0)
    axes.fill_between(found.times, low, high, color=colour, alpha=0.2, linewidth=0)
    axes.plot(found.times, middle, color=colour, marker="o", markersize=3, linewidth=1.5, label=label)


def _finish(axes: Axes, title: str, colour: str) -> None:
    axes.set_axis_on()
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color("#d0d7de")
    axes.set_title(title, fontsize=min(9.0, 9 * 16 / max(1, len(title))), color=colour, pad=3)
