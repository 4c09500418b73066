"""The standard pictures of a study's comparisons."""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.figure import Figure

from ..figures import draw_differences, draw_intervals, draw_posterior, draw_ranks, draw_scores
from ..figures.unit import Metric
from ..stats.number import write_percent
from ..stats.result import Comparison
from .study import Picture

MANY = 3
"""Contrasts from which an overview is worth its place."""


def draw_pictures(comparisons: Sequence[Comparison], folder: pathlib.Path) -> tuple[Picture, ...]:
    """Draw a study's scores, differences, posterior shares and, of many arms, the overviews, as SVG.

    Args:
        comparisons: One for each metric. The first answers; of the others scores and differences are drawn.
        folder: Where the files go; made if absent.

    Returns:
        The pictures in the page's order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pictures = []

    def add(draw: Callable[[Any, pathlib.Path], Figure], what: object, name: str, caption: str) -> None:
        path = folder / f"{name}.svg"
        draw(what, path)
        pictures.append(Picture(path, caption[0].upper() + caption[1:]))

    for i, comparison in enumerate(comparisons):
        metric, label = comparison.metric, Metric(comparison.metric).label
        level = write_percent(1 - comparison.alpha)
        rope = f"; grey band: up to {Metric(metric).size(comparison.rope)}, which counts as none" * bool(
            comparison.rope
        )
        of = "fold" if "fold" in comparison.design else "seed"
        paired = all(c.differences for c in comparison.contrasts)
        joined = f", joined between arms of the same {of}" * (paired and len(comparison.arms) <= 4)
        add(
            draw_scores,
            comparison,
            f"{metric}-scores",
            f"{label}: a point for each {of}{joined}; diamond and bar: mean and its {level} interval.",
        )
        points = f"a point for each {of}; " * paired
        add(
            draw_differences,
            comparison,
            f"{metric}-differences",
            f"Differences in {label}: {points}diamond and bar: mean and its {level} interval{rope}.",
        )
        if i == 0 and any(c.bayes for c in comparison.contrasts):
            add(
                draw_posterior,
                comparison,
                f"{metric}-posterior",
                f"Posterior shares of the mean difference in {label}: worse, no difference that counts, better.",
            )
        if i == 0 and comparison.omnibus:
            add(draw_ranks, comparison, f"{metric}-ranks", f"Mean ranks by {label}: an overview, not a test.")
    if comparisons and (len(comparisons) > 1 or len(comparisons[0].contrasts) >= MANY):
        caption = "All contrasts: mean differences and intervals; filled where p (Holm) is below the level."
        add(draw_intervals, comparisons, "intervals", caption)
    return tuple(pictures)
