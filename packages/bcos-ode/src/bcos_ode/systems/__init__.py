"""Dynamical systems: equations as data, trajectories, and one real series."""

from .catalogue import SYSTEMS
from .hare_lynx import hare_lynx
from .system import System, Term, make_system
from .trajectories import (
    Trajectories,
    check_times,
    draw_starts,
    even_step,
    make_trajectories,
    read_trajectories,
    simulate,
)

__all__ = [
    "SYSTEMS",
    "System",
    "Term",
    "Trajectories",
    "check_times",
    "draw_starts",
    "even_step",
    "hare_lynx",
    "make_system",
    "make_trajectories",
    "read_trajectories",
    "simulate",
]
