"""What a metric's name says of it: which way is better, whether it is a share, and so how its numbers are written."""

_COSTS = ("loss", "error", "seconds")
_SHARES = ("accuracy", "precision", "recall", "f1", "localisation", "share")


def higher_is_better(metric: str) -> bool:
    """Whether more of a metric is better: of all but those whose names end in loss, error or seconds.

    Example:
        >>> higher_is_better("accuracy"), higher_is_better("completeness_error")
        (True, False)
    """
    return not metric.endswith(_COSTS)


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
    return f"{100 * value:.2f}%" if is_share(metric) else f"{value:.4g}"


def write_difference(metric: str, value: float) -> str:
    """A signed difference of scores, of shares in percentage points.

    Example:
        >>> write_difference("accuracy", -0.00521), write_difference("loss", 0.000123)
        ('-0.52 pp', '+0.000123')
    """
    return f"{100 * value:+.2f} pp" if is_share(metric) else f"{value:+.3g}"
