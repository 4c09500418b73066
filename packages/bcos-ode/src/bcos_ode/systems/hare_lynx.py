"""Pelts of snowshoe hare and lynx of the Hudson's Bay Company, 1900 to 1920: the real series of this package."""

import numpy as np

from .trajectories import Trajectories

# thousands of pelts; Odum, Fundamentals of Ecology (1953), as given by Howard and by Stan's case study on them
_HARE = (
    *(30, 47.2, 70.2, 77.4, 36.3, 20.6, 18.1, 21.4, 22, 25.4, 27.1),
    *(40.3, 57, 76.6, 52.3, 19.5, 11.2, 7.6, 14.6, 16.2, 24.7),
)
_LYNX = (
    *(4, 6.1, 9.8, 35.2, 59.4, 41.7, 19, 13, 8.3, 9.1, 7.4),
    *(8, 12.3, 19.5, 45.7, 51.1, 29.7, 15.8, 9.7, 10.1, 8.6),
)


def hare_lynx() -> Trajectories:
    """The 21 years as one trajectory; times in years since 1900, states in thousands of pelts.

    Example:
        >>> hare_lynx().states.shape
        (1, 21, 2)
    """
    states = np.stack([np.array(_HARE, float), np.array(_LYNX, float)], -1)[None]
    return Trajectories("hare-lynx", ("hare", "lynx"), np.arange(21.0), states)
