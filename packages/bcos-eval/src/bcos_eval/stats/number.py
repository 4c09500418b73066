"""How numbers of no particular metric are written, in the terminal as on pages."""

import math

NONE = "\u2013"
"""Stands for a number that does not exist."""


def write_p(p: float) -> str:
    """A p value, never as zero.

    Example:
        >>> [write_p(p) for p in (0.0312, 0.00312, 0.0, float("nan"))]
        ['0.031', '0.0031', '< 0.0001', '–']
    """
    return NONE if math.isnan(p) else "< 0.0001" if p < 0.0001 else f"{p:.4f}" if p < 0.01 else f"{p:.3f}"


def write_percent(share: float) -> str:
    """A level, confidence or power in percent, with the digits that it has.

    Example:
        >>> [write_percent(share) for share in (1 - 0.05, 1 - 0.005, 0.001)]
        ['95%', '99.5%', '0.1%']
    """
    return f"{100 * share:g}%"
