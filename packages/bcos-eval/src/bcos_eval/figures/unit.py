"""How a metric's numbers are written: its unit, its digits, and which way is better."""

from dataclasses import dataclass
from functools import cached_property

_SHARES = ("accuracy", "precision", "recall", "f1", "localisation", "share")
_COSTS = ("loss", "error", "seconds")
_MINUS = "\u2212"


@dataclass(frozen=True)
class Metric:
    """A metric as figures and pages write it.

    Attributes:
        name: Column of the score table. Names that end in accuracy, precision, recall, f1, localisation or share are
            shares in [0, 1], written in percent, their differences in percentage points; lower is better where the
            name ends in loss, error or seconds.

    Example:
        >>> accuracy = Metric("top5_accuracy")
        >>> accuracy.label, accuracy.value(0.98614), accuracy.difference(-0.0052)
        ('top5 accuracy', '98.61%', '−0.52 pp')
        >>> loss = Metric("loss")
        >>> loss.value(0.012345), loss.difference(0.00021), loss.lower_is_better
        ('0.01234', '+0.000210', True)
    """

    name: str

    @cached_property
    def label(self) -> str:
        """The name as words."""
        return self.name.replace("_", " ")

    @cached_property
    def is_share(self) -> bool:
        return self.name.endswith(_SHARES)

    @cached_property
    def lower_is_better(self) -> bool:
        return self.name.endswith(_COSTS)

    @cached_property
    def scale(self) -> float:
        """What a value is multiplied by on an axis."""
        return 100.0 if self.is_share else 1.0

    @cached_property
    def axis(self) -> str:
        """Label of an axis of values."""
        return f"{self.label} (%)" if self.is_share else self.label

    @cached_property
    def difference_axis(self) -> str:
        """Label of an axis of differences."""
        return f"difference in {self.label}" + " (percentage points)" * self.is_share

    def value(self, x: float, *, unit: bool = True) -> str:
        """A value, with its unit unless told: two decimals of a percentage, four digits of anything else."""
        return f"{_minus(f'{100 * x:.2f}')}{'%' * unit}" if self.is_share else _digits(x, "#.4g")

    def difference(self, x: float, *, unit: bool = True) -> str:
        """A signed difference, with its unit unless told."""
        return f"{_minus(f'{100 * x:+.2f}')}{' pp' * unit}" if self.is_share else _digits(x, "+#.3g")

    def size(self, x: float) -> str:
        """A difference's size, without a sign, with its unit."""
        return self.difference(abs(x)).lstrip("+")


def write_p(p: float) -> str:
    """A p value as it stands after "p": with its sign of relation, never as zero.

    Example:
        >>> write_p(0.0312), write_p(0.00312), write_p(0.0)
        ('= 0.031', '= 0.0031', '< 0.0001')
    """
    return "< 0.0001" if p < 0.0001 else f"= {p:.4f}" if p < 0.01 else f"= {p:.3f}"


def write_time(seconds: float) -> str:
    """A duration in units that a person reads.

    Example:
        >>> [write_time(s) for s in (0.031, 9.94, 59.99, 3599.7, 7500, 200_000)]
        ['0.03 s', '9.9 s', '1 min 00 s', '1 h 00 min', '2 h 05 min', '2 d 7 h']
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


def _digits(x: float, spec: str) -> str:
    return _minus(format(x, spec)).rstrip(".")


def _minus(text: str) -> str:
    """A typographic minus, and none before a zero."""
    if not text.strip("+-0."):
        return text.lstrip("+-")
    return text.replace("-", _MINUS)
