"""Box plots of localisation scores."""

import pathlib
import textwrap
from collections.abc import Sequence

import pandas as pd
from matplotlib.figure import Figure

_OWN, _OTHER = "#4a6fa5", "#e3e7ec"  # far apart in grey, too


def draw_localisation(
    scores: pd.DataFrame, path: pathlib.Path, *, title: str, own: Sequence[tuple[str, str]] = ()
) -> None:
    """Draw how scores are spread: a panel for each model, a box for each method.

    A box holds the middle half of the maps, its line is their median, the diamond their mean; whiskers end at the 5th
    and 95th percentile. The oracle's line is at 1, the uniform map's at what it scores.

    Args:
        scores: Of one game: columns model, method, score, chance.
        path: PNG to write.
        title: First line of the picture.
        own: Models and methods to fill dark: models' own explanations.
    """
    models, methods = list(dict.fromkeys(scores["model"])), list(dict.fromkeys(scores["method"]))
    width = max(6.0, 0.8 * len(methods) + 1.5)
    figure = Figure(figsize=(width, 2.5 * len(models) + 1.9), layout="constrained")
    chance = scores["chance"].mean()
    for axes, model in zip(figure.subplots(len(models), 1, sharex=True, squeeze=False)[:, 0], models, strict=True):
        of_model = scores.loc[scores["model"] == model]
        groups = {m: of_model.loc[of_model["method"] == m, "score"].dropna() for m in of_model["method"].unique()}
        places = [methods.index(method) for method in groups]
        boxes = axes.boxplot(
            list(groups.values()),
            positions=places,
            widths=0.6,
            whis=(5, 95),
            showfliers=False,
            showmeans=True,
            patch_artist=True,
            medianprops={"color": "black", "linewidth": 1.6},
            meanprops={"marker": "D", "markerfacecolor": "white", "markeredgecolor": "black", "markersize": 5},
        )
        for box, method in zip(boxes["boxes"], groups, strict=True):
            box.set_facecolor(_OWN if (model, method) in own else _OTHER)
        axes.axhline(1, color="black", linewidth=0.9)
        axes.axhline(chance, color="black", linewidth=0.9, linestyle=(0, (5, 4)))
        for height, text in ((1, "oracle"), (chance, "uniform")):
            axes.annotate(text, (1, height), (4, 0), xycoords=("axes fraction", "data"), textcoords="offset points",
                          va="center", fontsize=8)  # fmt: skip
        axes.set_ylim(-0.03, 1.05)
        axes.set_xlim(-0.6, len(methods) - 0.4)
        axes.set_xticks(range(len(methods)), [m.replace("_x_", " x ").replace("_", "\n") for m in methods], fontsize=8)
        axes.set_ylabel("score", fontsize=9)
        axes.set_title(model, fontsize=10, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(textwrap.fill(title, int(11 * width)), fontsize=11)
    figure.supxlabel(
        "Box: middle half of the maps; line: median; diamond: mean; whiskers: 5% to 95%."
        + "\nDark: the model's own explanation." * bool(own),
        fontsize=8,
        color="#57606a",
    )
    figure.savefig(path, dpi=130)
