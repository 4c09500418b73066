"""What attribution methods say of the same images, side by side."""

import pathlib
from collections.abc import Sequence
from dataclasses import dataclass

from bcos_vision.figures import _HEAT, _limit
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

_CELL, _LABEL = 1.35, 2.5
"""Inches: of an image, and of what is said of a method."""


@dataclass(frozen=True)
class GalleryRow:
    """A method's maps."""

    method: str
    maps: Float[Tensor, "n h w"]
    notes: tuple[str, ...]
    """Lines under the method's name."""


def draw_gallery(
    images: Float[Tensor, "n c h w"],
    captions: Sequence[str],
    rows: Sequence[GalleryRow],
    path: pathlib.Path,
    *,
    title: str,
) -> None:
    """Draw images, and under each the maps of all methods.

    A map's colours are symmetric about zero and reach to its own 99.5th percentile of size; the darker colour speaks
    against the class, so that a print in grey still tells strong evidence apart.

    Args:
        images: In [0, 1], shape (N, C, H, W), C = 1 or 3.
        captions: What stands above each image.
        rows: The methods.
        path: PNG to write.
        title: First line of the picture.
    """
    high, wide = images.shape[2:]
    cell = _CELL * (high / wide)
    height = cell * (len(rows) + 1) + 0.08 * len(rows) + 1.15
    figure = Figure(figsize=(max(_LABEL + _CELL * len(images), 6.5), height), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.02, h_pad=0.03, wspace=0, hspace=0)  # type: ignore[union-attr]
    axes = figure.subplots(len(rows) + 1, len(images) + 1, squeeze=False, width_ratios=[_LABEL] + [_CELL] * len(images))
    _say(axes[0, 0], "image", ("and the class attributed",))
    for cell_axes, image, caption in zip(axes[0, 1:], images.float().cpu(), captions, strict=True):
        picture = image.permute(1, 2, 0).numpy()
        cell_axes.imshow(picture if picture.shape[2] == 3 else picture[..., 0], cmap="gray", vmin=0, vmax=1)
        cell_axes.set_title(caption, fontsize=min(8.0, 8 * 18 / max(1, len(caption))), pad=3)
        _frame(cell_axes)
    for line, row in zip(axes[1:], rows, strict=True):
        _say(line[0], row.method, row.notes)
        for cell_axes, heat in zip(line[1:], row.maps.float().cpu(), strict=True):
            limit = _limit(heat)
            cell_axes.imshow(heat.numpy(), cmap=_HEAT, vmin=-limit, vmax=limit)
            _frame(cell_axes)
    figure.suptitle(title, fontsize=11, fontweight="bold")
    figure.supxlabel(
        "Red: for the class; blue, darker in grey: against; white: nothing.\n"
        "Each map has a scale of its own; compare patterns, not strengths.",
        fontsize=8,
        color="#57606a",
    )
    figure.savefig(path, dpi=150)


def _say(axes: Axes, name: str, notes: Sequence[str]) -> None:
    axes.set_axis_off()
    axes.text(0, 0.95, name, fontsize=9.5, fontweight="bold", va="top", transform=axes.transAxes)
    axes.text(0, 0.74, "\n".join(notes), fontsize=7.5, va="top", color="#424a53", transform=axes.transAxes)


def _frame(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_color("#d0d7de")
