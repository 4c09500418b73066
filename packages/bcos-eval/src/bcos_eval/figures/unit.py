"""How numbers are typeset on figures and pages: a metric's label and unit, p values, durations."""

import math
from dataclasses import dataclass

from ..stats.metric import is_share, write_difference, write_value
from ..stats.number import NONE, write_p


@dataclass(frozen=True)
class Metric:
    """A metric as figures and pages write it; digits and units are :mod:`bcos_eval.stats.metric`'s.

    Attributes:
        name: Column of the score table.

    Example:
        >>> accuracy = Metric("top5_accuracy")
        >>> accuracy.label, accuracy.axis, accuracy.value(0.98614), accuracy.difference(-0.0052), accuracy.size(-0.0052)
        ('top5 accuracy', 'top5 accuracy (%)', '98.61%', '−0.52 pp', '0.52 pp')
    """

    name: str

    @property
    def label(self) -> str:
        """The name as words."""
        return self.name.replace("_", " ")

    @property
    def scale(self) -> float:
        """What a value is multiplied by on an axis."""
        return 100.0 if is_share(self.name) else 1.0

    @property
    def axis(self) -> str:
        """Label of an axis of values."""
        return f"{self.label} (%)" if is_share(self.name) else self.label

    @property
    def difference_axis(self) -> str:
        """Label of an axis of differences."""
        return f"difference in {self.label}" + " (percentage points)" * is_share(self.name)

    def value(self, x: float) -> str:
        """A value with its unit."""
        return _typeset(write_value(self.name, x), x)

    def difference(self, x: float) -> str:
        """A signed difference with its unit."""
        return _typeset(write_difference(self.name, x), x)

    def size(self, x: float) -> str:
        """A difference's size, without a sign, with its unit."""
        return self.difference(abs(x)).lstrip("+")

    def value_ends(self, low: float, high: float) -> str:
        """An interval of values; a dash where there is none."""
        return NONE if math.isnan(low) else f"{self.value(low)} to {self.value(high)}"

    def ends(self, low: float, high: float) -> str:
        """An interval of differences; its unit is written once, at the end. A dash where there is none."""
        if math.isnan(low):
            return NONE
        return f"{self.difference(low).removesuffix(' pp')} to {self.difference(high)}"


def write_number(x: float | None, spec: str) -> str:
    """A number by a format specification, with a typographic minus; a dash where there is none.

    Example:
        >>> write_number(-1.234, "+.2f"), write_number(float("nan"), ".2f"), write_number(None, ".2f")
        ('−1.23', '–', '–')
    """
    return NONE if x is None else _typeset(format(x, spec), x)


def state_p(p: float, name: str = "p") -> str:
    """A p value with its name: "p = 0.031", "p < 0.0001", "no p"."""
    return f"no {name}" if math.isnan(p) else f"{name} {write_p(p)}" if p < 0.0001 else f"{name} = {write_p(p)}"


def write_time(seconds: float) -> str:
    """A duration in units that a person reads.

    Example:
        >>> [write_time(s) for s in (0.031, 9.94, 59.99, 3599.7, 7500, 200_000)]
        ['0.03 s', '9.9 s', '1 min 00 s', '1 h 00 min', '2 h 05 min', '2 d 8 h']
    """
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"
    if seconds < 3599.5:
        minutes, rest = divmod(round(seconds), 60)
        return f"{minutes} min {rest:02d} s"
    if (minutes := round(seconds / 60)) < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    hours = round(seconds / 3600)
    return f"{hours // 24} d {hours % 24} h"


def _typeset(text: str, x: float) -> str:
    if not math.isfinite(x):
        return NONE
    if not text.strip("+-0.% p"):  # rounded to zero, it has no sign
        text = text.lstrip("+-")
    return text.replace("-", "\u2212")
