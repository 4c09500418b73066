"""One line of the results: one peer on one case."""

import re
from dataclasses import dataclass


@dataclass
class Row:
    """What was measured; None where it does not apply or could not be had, and then ``note`` says why."""

    case: str
    kind: str
    """Of the case, or "network"."""
    options: bool
    """Whether the case has options beyond a dense layer with B = 2."""
    device: str
    dtype: str
    mode: str
    batch: int
    peer: str
    status: str = "ok"
    """"ok"; "skipped" where the peer has no such thing; "failed" where it should have worked."""
    note: str = ""
    rounds: int | None = None
    copies: int | None = None
    """Of the inputs, met in turn."""
    median_ms: float | None = None
    p10_ms: float | None = None
    p90_ms: float | None = None
    ratio: float | None = None
    """To the plain layer or network: median of the rounds' ratios."""
    graph_ms: float | None = None
    """Median replay of a CUDA graph, per call."""
    graph_ratio: float | None = None
    gb_per_s: float | None = None
    """The bytes the layer must move (see roofline.py) over the median time; GFLOP/s likewise."""
    gflop_per_s: float | None = None
    share_of_limit: float | None = None
    """The shortest time this machine could need (see roofline.py) over the median time."""
    kept_mib: float | None = None
    """Kept for backward, without parameters."""
    peak_mib: float | None = None
    """Allocated during the call beyond what there was before."""
    error: float | None = None
    """Largest error of output and gradients against the formula in float64 (see accuracy.py)."""
    images_per_s: float | None = None


def reason(error: Exception) -> str:
    """The first line of an error, with the names of files but not the folders they are in on this machine."""
    line = f"{type(error).__name__}: {error}".splitlines()[0]
    return re.sub(r"(?:/[\w.+-]+)+/", "", line)[:200]
