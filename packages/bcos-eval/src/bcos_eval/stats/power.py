"""What a design could see: power of a two-sided t test, from the noncentral t."""

import bisect
import math

from scipy import optimize, special, stats

MOST_RUNS = 10_000


def power_of(difference: float, se: float, df: float, *, alpha: float = 0.05) -> float:
    """Power of a t test.

    Args:
        difference: The true one, at least 0.
        se: Standard error of its estimate: sd times the root of 1/n for pairs, of 1/n + n_test/n_train for folds, of
            1/n + 1/m for independent runs.
        df: Degrees of freedom.
        alpha: Level.

    Example:
        >>> round(power_of(0.8, math.sqrt(2 / 26), 50), 2)  # 26 runs of each arm, 0.8 standard deviations apart
        0.81
    """
    critical = float(stats.t.isf(alpha / 2, df))
    return 1 - _noncentral_t(critical, df, difference / se) + _noncentral_t(-critical, df, difference / se)


def smallest_detectable(se: float, df: float, *, alpha: float = 0.05, power: float = 0.8) -> float:
    """Smallest true difference that a share ``power`` of studies finds; arguments as of :func:`power_of`.

    Example:
        >>> round(smallest_detectable(math.sqrt(2 / 5), 8), 2)  # five seeds of each arm see two standard deviations
        2.02
    """

    def excess(difference: float) -> float:
        return power_of(difference, 1.0, df, alpha=alpha) - power

    high = 1.0
    while excess(high) < 0:
        high *= 2
    return se * optimize.root_scalar(excess, bracket=(0.0, high), method="brentq", xtol=1e-12).root


def runs_needed(
    difference: float, sd: float, *, ratio: float = 0.0, arms: int = 1, alpha: float = 0.05, power: float = 0.8
) -> int | None:
    """Fewest runs of each arm, or folds, that find a difference with ``power``.

    Args:
        difference: The true one, above 0.
        sd: Standard deviation of a paired difference, or of an arm's scores if ``arms`` is 2.
        ratio: n_test / n_train, if these are folds. The standard error is then never below sqrt(ratio) sd, however
            often the data is cut anew, and a small difference stays out of reach.
        arms: 1 if runs are paired, 2 if not.
        alpha: Level.
        power: Share of studies that find it.

    Returns:
        A number of at least 2, or None if it is above 10 000.

    Example:
        >>> [runs_needed(d, 1.0, arms=2) for d in (0.8, 1.0, 1.5, 2.0)]
        [26, 17, 9, 6]
        >>> runs_needed(1.0, 1.0, ratio=1 / 4) is None  # the standard error is at least 0.5
        True
    """

    def power_with(runs: int) -> float:
        return power_of(difference, sd * math.sqrt(arms / runs + ratio), arms * (runs - 1), alpha=alpha)

    if power_with(MOST_RUNS) < power:
        return None
    return 2 + bisect.bisect_left(range(2, MOST_RUNS), power, key=power_with)


def _noncentral_t(x: float, df: float, shift: float) -> float:
    """Distribution function; SciPy's, which statsmodels' power calls, is NaN here and there below 1e-14."""
    p = float(special.nctdtr(df, shift, x))
    return 0.0 if math.isnan(p) else p
