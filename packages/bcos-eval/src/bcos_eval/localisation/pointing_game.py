"""Pointing games: which share of what a map says for a class lies where the class is."""

import time
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from bcos_vision.data import Images, to_unit_range
from bcos_vision.data.picture import Box
from bcos_vision.progress import track
from jaxtyping import Float
from torch import Tensor

from bcos_eval.attribution.attributor import Attributor

from .grids import Grids
from .mosaic import cell_shares, divide, positive_part, resize_cells, tile

COLUMNS = ("grid", "cell", "class", "score", "chance", "empty", "residual", "seconds")
"""What a game says of each map: the grid (of boxes: the image), the cell in it, the class explained, the score in
[0, 1], what a uniform map scores, whether no pixel of the map is positive (its score is 0), how far it is from adding
up (:attr:`.Attribution.residual`; not a number where its method promises no sum), seconds it took."""


def play_grids(
    attributor: Attributor,
    images: Images,
    grids: Grids,
    *,
    smooth: int = 1,
    cell_size: int | None = None,
    batch_size: int = 16,
    disconnected: int = 0,
    device: torch.device | str = "cpu",
) -> pd.DataFrame:
    """The grid pointing game (Böhle et al., CVPR 2021, arXiv 2104.00032; CVPR 2022).

    Images of distinct classes make a mosaic. For each class in it, the score is the share of the map's positive part
    that lies in the class's cell: 1 at best, 1/side² for a uniform map. Nothing asks the network to recognise the
    classes in the mosaic, and nothing keeps it from using another cell; :mod:`.difull` does.

    Args:
        attributor: A method on a model.
        images: What the grids were drawn from.
        grids: Which image stands where (:func:`.draw_grids`).
        smooth: Side of the box that averages a map first; odd.
        cell_size: Pixels along a cell's side; None for the images' own.
        batch_size: Maps at a time.
        disconnected: The number of the model's classes K, if the attributor's is a :class:`.DisconnectedModel`.
        device: Where the model is.

    Returns:
        A row for each cell of each grid, :data:`COLUMNS`.
    """
    cells = grids.side**2
    rows: list[pd.DataFrame] = []
    per_batch = max(1, batch_size // cells)  # mosaics, if all maps of one fit
    starts = range(0, len(grids), per_batch)
    for start in track(starts, f"grids, {attributor.name}", len(starts)):
        index, classes = grids.indices[start : start + per_batch], grids.classes[start : start + per_batch]
        pictures = to_unit_range(images[index.ravel()][0].to(device))
        mosaics = tile(pictures if cell_size is None else resize_cells(pictures, cell_size), grids.side)
        cell = np.tile(np.arange(cells), len(index))
        target = torch.from_numpy(classes.ravel() + cell * disconnected).to(device)
        maps, residual, seconds = _attribute(attributor, mosaics, target, cells, batch_size)
        shares = cell_shares(maps, grids.side, smooth=smooth)
        frame = {
            "grid": np.repeat(np.arange(start, start + len(index)), cells),
            "cell": cell,
            "class": classes.ravel(),
            "score": shares.gather(1, torch.from_numpy(cell)[:, None])[:, 0].numpy(),
            "chance": 1 / cells,
            "empty": (shares == 0).all(1).numpy(),
            "residual": residual.numpy(),
            "seconds": seconds,
        }
        rows.append(pd.DataFrame(frame))
    return pd.concat(rows, ignore_index=True)


def play_boxes(
    attributor: Attributor,
    images: Images,
    boxes: Mapping[int, Box],
    indices: Sequence[int],
    *,
    smooth: int = 1,
    batch_size: int = 16,
    device: torch.device | str = "cpu",
) -> pd.DataFrame:
    """The energy-based pointing game (Wang et al., CVPR-W 2020, arXiv 1910.01279).

    The score is the share of the positive part of the true class's map that lies in the object's box. What a uniform
    map scores, the box's share of the image, stands beside it: a box that fills the image is no achievement.

    Args:
        attributor: A method on a model.
        images: The images.
        boxes: First and last column and row of the object, by image.
        indices: Which images to explain; each has a box.
        smooth: Side of the box that averages a map first; odd.
        batch_size: Maps at a time.
        device: Where the model is.

    Returns:
        A row for each image, :data:`COLUMNS`.
    """
    rows = []
    starts = range(0, len(indices), batch_size)
    for start in track(starts, f"boxes, {attributor.name}", len(starts)):
        chosen = indices[start : start + batch_size]
        batch, labels = images[chosen]
        maps, residual, seconds = _attribute(
            attributor, to_unit_range(batch.to(device)), labels.to(device), 1, batch_size
        )
        inside = torch.stack([box_mask(boxes[i], *maps.shape[1:]) for i in chosen])
        score, empty = masked_share(maps, inside, smooth=smooth)
        frame = {
            "grid": chosen,
            "cell": 0,
            "class": labels.numpy(),
            "score": score.numpy(),
            "chance": inside.double().mean((1, 2)).numpy(),
            "empty": empty.numpy(),
            "residual": residual.numpy(),
            "seconds": seconds,
        }
        rows.append(pd.DataFrame(frame))
    return pd.concat(rows, ignore_index=True)


def box_mask(box: Box, height: int, width: int) -> Float[Tensor, "h w"]:
    """1 inside a box, whose corners belong to it.

    Example:
        >>> box_mask((1, 0, 2, 0), 2, 3)
        tensor([[0., 1., 1.],
                [0., 0., 0.]])
    """
    x_min, y_min, x_max, y_max = box
    mask = torch.zeros(height, width)
    mask[y_min : y_max + 1, x_min : x_max + 1] = 1
    return mask


def masked_share(
    maps: Float[Tensor, "n h w"], inside: Float[Tensor, "n h w"], *, smooth: int = 1
) -> tuple[Float[Tensor, "n"], Tensor]:
    """The share of each map's positive part in a mask, 0 where there is none; and where there is none."""
    positive = positive_part(maps, smooth=smooth)
    total = positive.sum((1, 2))
    return divide((positive * inside).sum((1, 2)), total), total == 0


def _attribute(
    attributor: Attributor, pictures: Tensor, target: Tensor, repeats: int, batch_size: int
) -> tuple[Tensor, Tensor, float]:
    """Maps of ``repeats`` targets for each picture and their residuals, on the CPU, and the seconds that each took."""
    pictures = pictures.repeat_interleave(repeats, 0)
    maps, residuals = [], []
    began = time.perf_counter()
    for part, aim in zip(pictures.split(batch_size), target.split(batch_size), strict=True):
        found = attributor.attribute(part, aim)
        maps.append(found.map.detach().float().cpu())  # copying to the CPU waits for the device
        unknown = found.map.new_full((len(part),), torch.nan)
        residuals.append((unknown if found.residual is None else found.residual).detach().double().cpu())
    return torch.cat(maps), torch.cat(residuals), (time.perf_counter() - began) / len(pictures)
