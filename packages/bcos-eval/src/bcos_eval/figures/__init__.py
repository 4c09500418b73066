"""Figures of scores and explanations; none of them trains or tests anything."""

from .differences import draw_differences, draw_intervals, draw_posterior
from .ranks import draw_ranks
from .scatter import draw_scatter
from .scores import draw_scores

__all__ = ["draw_differences", "draw_intervals", "draw_posterior", "draw_ranks", "draw_scatter", "draw_scores"]
