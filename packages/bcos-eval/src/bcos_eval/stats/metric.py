"""What a metric's name says of it: which way is better, whether it is a share, and so how its numbers are written."""

import math
import re

from .number import NONE

_SIZE = r"errors?|seconds|n?r?mse|n?mae|mape|ece|mce|brier|(max|avg)_sensitivity"
_COST = re.compile(
    rf"(?<![^\W_])(loss|regret|nll|perplexity|entropy|divergence|deletion|{_SIZE})(?![^\W_])", re.IGNORECASE
)
_NONNEGATIVE = re.compile(rf"(?<![^\W_])({_SIZE}|valid_time)(?![^\W_])", re.IGNORECASE)
_SHARES = ("accuracy", "precision", "recall", "f1", "localisation", "share")


def higher_is_better(metric: str) -> bool:
    """Whether more of a metric is better: of all but those whose names have the word for a cost in them.

    Costs are loss, error, seconds, regret, mse, rmse, mae, nll, ece, brier, perplexity and their like, and
    max_sensitivity (of an explanation; sensitivity alone is a classifier's recall).

    Example:
        >>> higher_is_better("test/accuracy"), higher_is_better("test/rmse_mean"), higher_is_better("valid_time")
        (True, False, True)
    """
    return not _COST.search(metric)


def is_share(metric: str) -> bool:
    """Whether a metric is a share in [0, 1], whose differences are percentage points.

    Example:
        >>> is_share("top5_accuracy"), is_share("loss")
        (True, False)
    """
    return metric.endswith(_SHARES)


def value_range(metric: str) -> tuple[float, float]:
    """Smallest and largest value that a metric can have; infinite where its name does not say.

    Example:
        >>> value_range("top5_accuracy"), value_range("field_error"), value_range("r2"), value_range("loss")
        ((0.0, 1.0), (0.0, inf), (-inf, 1.0), (-inf, inf))
    """
    if is_share(metric):
        return 0.0, 1.0
    if _NONNEGATIVE.search(metric):
        return 0.0, math.inf
    return -math.inf, 1.0 if metric == "r2" else math.inf


def difference_range(metric: str) -> tuple[float, float]:
    """The same of the difference of two values.

    Example:
        >>> difference_range("accuracy"), difference_range("field_error")
        ((-1.0, 1.0), (-inf, inf))
    """
    low, high = value_range(metric)
    return low - high, high - low


def write_value(metric: str, value: float) -> str:
    """A score with its unit; a dash where there is none.

    Example:
        >>> write_value("accuracy", 0.98614), write_value("loss", 0.0123456), write_value("loss", math.nan)
        ('98.61%', '0.01235', '–')
    """
    if math.isnan(value):
        return NONE
    return f"{100 * value:.2f}%" if is_share(metric) else f"{value:#.4g}".removesuffix(".")


def write_difference(metric: str, value: float) -> str:
    """A signed difference of scores, of shares in percentage points; a dash where there is none.

    Example:
        >>> write_difference("accuracy", -0.00521), write_difference("loss", 0.000123)
        ('-0.52 pp', '+0.000123')
    """
    if math.isnan(value):
        return NONE
    return f"{100 * value:+.2f} pp" if is_share(metric) else f"{value:+#.3g}".removesuffix(".")
