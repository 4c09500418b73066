"""What a metric's name says of it: which way is better, whether it is a share, and so how its numbers are written."""

import re

_COST = re.compile(
    r"(?<![^\W_])(loss|errors?|seconds|regret|n?r?mse|n?mae|mape|nll|ece|mce|brier|perplexity|entropy|divergence|deletion"
    r"|(max|avg)_sensitivity)(?![^\W_])",
    re.IGNORECASE,
)
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


def write_value(metric: str, value: float) -> str:
    """A score with its unit.

    Example:
        >>> write_value("accuracy", 0.98614), write_value("loss", 0.0123456)
        ('98.61%', '0.01235')
    """
    return f"{100 * value:.2f}%" if is_share(metric) else f"{value:#.4g}".removesuffix(".")


def write_difference(metric: str, value: float) -> str:
    """A signed difference of scores, of shares in percentage points.

    Example:
        >>> write_difference("accuracy", -0.00521), write_difference("loss", 0.000123)
        ('-0.52 pp', '+0.000123')
    """
    return f"{100 * value:+.2f} pp" if is_share(metric) else f"{value:+#.3g}".removesuffix(".")
