"""Pictures of explanations and scores; drawn without a display, and without pyplot's global state."""

import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from bcos_core import Explanation, explain
from bcos_core.explanation import Comparison
from bcos_core.nn import InverseEncoding
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image
from torch import Tensor

from .data import to_unit_range
from .models import ImageClassifier
from .probability import probabilities

_RIGHT, _WRONG = "#1a7f37", "#c4302b"
# red for, blue against; the blue is the darker one, so that a print in grey still tells strong evidence apart
EVIDENCE = LinearSegmentedColormap.from_list("evidence", ["#0b2f6b", "#5b9bd5", "#ffffff", "#f2a07b", "#d9481c"])
_GREY_GROUND = "#a9c9e8"  # under a grey explanation: white would hide the white that the network looks for


def draw_test_explanations(
    model: ImageClassifier,
    images: Tensor,
    labels: Tensor,
    classes: Sequence[str],
    path: pathlib.Path,
    *,
    title: str,
    softmax: bool = False,
) -> None:
    """Draw images, their explanations for the predicted class and, where that is wrong, for the true class.

    Args:
        model: The classifier, in float32 on any device.
        images: Bytes, shape (N, C, H, W).
        labels: True classes, shape (N,).
        classes: Names of the classes.
        path: PNG to write.
        title: First line of the picture.
        softmax: Percentages are probabilities of the softmax, not of each logit by itself.
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
    _draw_blocks(parts[0], 4, panels, softmax, [(x, labels, classes, predicted, None, int(i)) for i in right])
    if len(wrong):
        of_truth = explain(model, x, labels)
        parts[1].suptitle(
            "predicted wrong: first why the predicted class, then what speaks for the true one",
            fontsize=10,
            color=_WRONG,
        )
        _draw_blocks(
            parts[1], 2, per_wrong, softmax, [(x, labels, classes, predicted, of_truth, int(i)) for i in wrong]
        )
    _caption(figure, predicted.weights.shape[1])
    figure.savefig(path, dpi=130)


def draw_explanation(
    image: Tensor,
    explanation: Explanation,
    classes: Sequence[str],
    path: pathlib.Path,
    *,
    title: str,
    softmax: bool = False,
) -> None:
    """Draw one image and its explanation large, with the classes that scored highest.

    Args:
        image: In [0, 1], shape (C, H, W).
        explanation: Of this image alone (N = 1).
        classes: Names of the classes.
        path: PNG to write.
        title: First line of the picture.
        softmax: Bars are probabilities of the softmax, not of each logit by itself.
    """
    colours = _explains_colours(explanation)
    figure = Figure(figsize=(3 * (3 + colours), 3.7), layout="constrained")
    axes = list(figure.subplots(1, 3 + colours))
    _show_image(axes.pop(0), image, "what it sees")
    if colours:
        _show_rgba(axes.pop(0), explanation, 0, "why: colours that drive the logit")
    _show_heat(axes[0], explanation, 0, _sum(explanation))
    chances = probabilities(explanation.logits, softmax=softmax)[0]
    top = chances.topk(min(5, len(classes)))
    names = [_shorten(classes[int(i)]) for i in top.indices]
    colour = [_RIGHT if i == explanation.target[0] else "#8c959f" for i in top.indices]
    bars = axes[1].barh(range(len(names))[::-1], top.values.tolist(), height=0.6, color=colour)
    axes[1].bar_label(bars, [f"{share:.1%}" for share in top.values.tolist()], padding=3, fontsize=8)
    axes[1].set_yticks(range(len(names))[::-1], names, fontsize=9)
    axes[1].set_xlim(0, 1.25)  # room for the numbers
    axes[1].set_box_aspect(1)  # as high as the pictures
    axes[1].set_xticks([0, 0.5, 1], ["0", "50%", "100%"], fontsize=8)
    axes[1].set_title(f"probability ({'softmax' if softmax else 'sigmoid of the logit'})", fontsize=9, pad=3)
    axes[1].spines[["top", "right"]].set_visible(False)
    figure.suptitle(title, fontsize=12, fontweight="bold")
    _caption(figure, explanation.weights.shape[1])
    figure.savefig(path, dpi=130)


def draw_comparison(
    image: Tensor, comparison: Comparison, classes: Sequence[str], path: pathlib.Path, *, title: str
) -> None:
    """Draw one image, what speaks for each of two classes, and which pixels decide between them.

    Args:
        image: In [0, 1], shape (C, H, W).
        comparison: Of this image alone (N = 1).
        classes: Names of the classes.
        path: PNG to write.
        title: First line of the picture.
    """
    figure = Figure(figsize=(12, 3.9), layout="constrained")
    axes = figure.subplots(1, 4)
    _show_image(axes[0], image, "what it sees\n")  # two lines, as the others
    both = (comparison.first, comparison.second)
    names = [_shorten(classes[int(e.target[0])]) for e in both]
    limit = max(colour_limit(e.contribution_map[0]) for e in (*both, comparison))
    for cell, explanation, name in zip(axes[1:], both, names, strict=False):
        text = f"for and against {name}\n{_sum(explanation)}"
        _show_heat(cell, explanation, 0, text, limit=limit)
    text = f"decides for {names[0]} (red) or {names[1]} (blue)\n{_sum(comparison)}"
    _show_heat(axes[3], comparison, 0, text, limit=limit)
    figure.suptitle(title, fontsize=12, fontweight="bold")
    figure.supxlabel(
        "Red: for, blue: against, all on one scale. The last is the first minus the second: its pixels plus constants "
        f"are how much larger the logit of {names[0]} is.",
        fontsize=8,
        color="#57606a",
    )
    figure.savefig(path, dpi=130)


def draw_plain(explanation: Explanation | Comparison, path: pathlib.Path) -> None:
    """Write an explanation alone, a pixel for each pixel; images of less than 128 pixels are enlarged whole times.

    Of a B-cos network these are its colours, with opacity (on a blue ground for grey images, whose white would not
    show); of a plain network, or two classes, the heat map.

    Args:
        explanation: Of one image (N = 1).
        path: PNG to write.
    """
    heat = explanation.contribution_map[0].float().cpu()
    if isinstance(explanation, Comparison) or not _explains_colours(explanation):
        limit = colour_limit(heat)
        picture = EVIDENCE((heat / (2 * limit) + 0.5).numpy(), bytes=True)[..., :3]
    else:
        picture = (_rgba(explanation, 0).clamp(0, 1) * 255).round().to(torch.uint8).numpy()
    times = -(-128 // min(heat.shape))
    enlarged = Image.fromarray(picture.repeat(times, 0).repeat(times, 1))
    if enlarged.mode == "RGBA" and explanation.contributions.shape[1] == 2:
        ground = Image.new("RGBA", enlarged.size, _GREY_GROUND)
        enlarged = Image.alpha_composite(ground, enlarged).convert("RGB")
    enlarged.save(path, compress_level=1)  # thrice as fast, little larger


def draw_confusion(confusion: Tensor, classes: Sequence[str], path: pathlib.Path, *, title: str) -> None:
    """Draw a confusion matrix: rows are true classes, columns predicted ones; counts where they can be read.

    Args:
        confusion: Counts, shape (K, K), or (K, K + 1) where the last column holds predictions of other classes.
        classes: Names of the K classes.
        path: PNG to write.
        title: First line of the picture.
    """
    k = len(classes)
    columns = [*classes, "another"][: confusion.shape[1]]
    side = float(np.clip(0.45 * k + 2, 4, 16))
    figure = Figure(figsize=(side, side), layout="constrained")
    axes = figure.subplots()
    share = confusion / confusion.sum(1, keepdim=True).clamp(min=1)
    axes.imshow(share.numpy(), cmap="Blues", vmin=0, vmax=1)
    axes.set_xlabel("predicted")
    axes.set_ylabel("true")
    if k <= 30:
        axes.set_xticks(range(len(columns)), columns, rotation=90 if max(map(len, columns)) > 2 else 0)
        axes.set_yticks(range(k), classes)
        for i in range(k):
            for j in range(len(columns)):
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


def draw_exponents(
    history: Mapping[str, Mapping[int, float]], final: Mapping[str, Tensor], path: pathlib.Path, *, title: str
) -> None:
    """Draw the exponents B over depth and time, and over depth at the end.

    Args:
        history: For each layer its B (of channels, their mean) at the epochs for which there is one.
        final: For each layer, in the order of depth, its B at the end: one value, or one for each channel.
        path: PNG to write.
        title: First line of the picture.
    """
    layers = list(final)
    epochs = sorted({epoch for values in history.values() for epoch in values})
    grid = np.array([[history.get(layer, {}).get(epoch, np.nan) for epoch in epochs] for layer in layers])
    height = float(np.clip(0.2 * len(layers) + 1.6, 3.2, 14))
    figure = Figure(figsize=(11, height), layout="constrained")
    over_time, at_the_end = figure.subplots(1, 2, sharey=True, width_ratios=[3, 2])
    edges = (min(epochs) - 0.5, max(epochs) + 0.5, len(layers) - 0.5, -0.5)
    heat = over_time.imshow(grid, aspect="auto", extent=edges, cmap="viridis", interpolation="nearest")
    figure.colorbar(heat, ax=over_time, label="B (mean over channels)")
    over_time.set_xlabel("epoch")
    over_time.xaxis.set_major_locator(MaxNLocator(integer=True))
    over_time.set_ylabel("layer, input at the top")
    over_time.set_yticks(range(len(layers)), layers, fontsize=8 if len(layers) <= 40 else 5)
    for row, layer in enumerate(layers):
        b = final[layer].reshape(-1).double()
        if len(b) > 1:
            at_the_end.plot([float(b.min()), float(b.max())], [row, row], color="#9fb3c8", linewidth=3, zorder=1)
        at_the_end.plot(float(b.mean()), row, "o", color="#1f4e79", markersize=5, zorder=2)
    at_the_end.axvline(1, color="#57606a", linewidth=0.8, linestyle=":")
    at_the_end.set_xlabel(
        "B at the end" + (": mean, least to largest channel" * any(b.numel() > 1 for b in final.values()))
    )
    at_the_end.grid(axis="x", color="#e5e9ee")
    figure.suptitle(title, fontsize=11)
    figure.savefig(path, dpi=130)


_Block = tuple[Tensor, Tensor, Sequence[str], Explanation, Explanation | None, int]


def _draw_blocks(figure: object, columns: int, panels: int, softmax: bool, blocks: list[_Block]) -> None:
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
        probability = float(probabilities(predicted.logits[i : i + 1], softmax=softmax)[0, predicted.target[i]])
        pairs = [(predicted, f"{answer} ({probability:.0%})", _RIGHT if of_truth is None else _WRONG)]
        if of_truth is not None:
            probability = float(probabilities(of_truth.logits[i : i + 1], softmax=softmax)[0, labels[i]])
            pairs.append((of_truth, f"{truth} ({probability:.0%})", "black"))
        for explanation, text, colour in pairs:
            if _explains_colours(explanation):
                _show_rgba(cells.pop(0), explanation, i, text, colour)
                text = f"sum {float(explanation.contributions[i].sum()):+.3g}"
                colour = "black"
            _show_heat(cells.pop(0), explanation, i, text, colour)
    for cell in axes.flat:  # a long name must not run into its neighbour's
        cell.title.set_fontsize(min(9.0, 9 * 17 / max(1, len(cell.title.get_text()))))


def _show_image(axes: Axes, image: Tensor, title: str, colour: str | None = None) -> None:
    picture = image.float().cpu().permute(1, 2, 0).numpy()
    axes.imshow(picture if picture.shape[2] == 3 else picture[..., 0], cmap="gray", vmin=0, vmax=1)
    _finish(axes, title, colour)


def _show_rgba(axes: Axes, explanation: Explanation, i: int, title: str, colour: str | None = None) -> None:
    axes.set_facecolor(_GREY_GROUND if explanation.weights.shape[1] == 2 else "white")
    axes.imshow(_rgba(explanation, i).clamp(0, 1).numpy())
    _finish(axes, title, colour)


def _show_heat(
    axes: Axes,
    explanation: Explanation | Comparison,
    i: int,
    title: str,
    colour: str | None = None,
    limit: float | None = None,
) -> None:
    heat = explanation.contribution_map[i].float().cpu()
    limit = limit or colour_limit(heat)
    axes.imshow(heat.numpy(), cmap=EVIDENCE, vmin=-limit, vmax=limit)
    _finish(axes, title, colour)


def colour_limit(heat: Tensor) -> float:
    """Where the colours of a heat map end."""
    return float(torch.quantile(heat.float().cpu().abs().flatten(), 0.995)) or 1.0


def _rgba(explanation: Explanation, i: int) -> Tensor:
    """Height, width, colour and opacity."""
    smooth = 1 if explanation.weights.shape[-1] < 64 else 5
    return explanation.to_rgba(smooth=smooth)[i].permute(1, 2, 0).cpu()


def _sum(explanation: Explanation | Comparison) -> str:
    total, rest = float(explanation.contributions[0].sum()), float(explanation.remainder[0])
    return f"pixels {total:+.2f}, constants {rest:+.2f}: logit {float(explanation.logit[0]):+.2f}"


def _shorten(name: str, most: int = 24) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _explains_colours(explanation: Explanation) -> bool:
    return explanation.weights.shape[1] in (2, 6)


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
    return isinstance(model.encoding, InverseEncoding)
