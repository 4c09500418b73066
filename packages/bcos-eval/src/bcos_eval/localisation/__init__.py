"""Where explanations point: grid pointing game, boxes, DiFull."""

from .contest import Contest, Game, Rules
from .difull import DisconnectedModel
from .grids import Grids, Prediction, count_grids, draw_grids, draw_official_grids, predict, shared_images
from .mosaic import cell_shares, tile, untile
from .pointing_game import play_boxes, play_grids
from .summary import Difference, difference, select, summarise

__all__ = [
    "Contest",
    "Difference",
    "DisconnectedModel",
    "Game",
    "Grids",
    "Prediction",
    "Rules",
    "cell_shares",
    "count_grids",
    "difference",
    "draw_grids",
    "draw_official_grids",
    "play_boxes",
    "play_grids",
    "predict",
    "select",
    "shared_images",
    "summarise",
    "tile",
    "untile",
]
