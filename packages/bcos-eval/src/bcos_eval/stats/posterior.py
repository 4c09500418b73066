"""What to believe of a difference: worse, as good as the same, or better."""

from typing import Any

from baycomp.single import Posterior

from .result import Bayes
from .student import Estimate


def posterior_shares(estimate: Estimate, rope: float, *, higher_is_better: bool = True) -> Bayes:
    """Posterior shares of the mean difference, under a flat prior of mean and log sd.

    The posterior is the t distribution of the estimate. Of a corrected resampled t this is the Bayesian correlated
    t-test (Corani and Benavoli, Machine Learning 100, 2015; Benavoli et al., JMLR 18, 2017, sec. 4.1); of Welch's t it
    is an approximation.

    Args:
        estimate: Of the difference, arm minus control, with se > 0.
        rope: Differences up to this size, in the metric's unit, count as none; at least 0.
        higher_is_better: Whether a positive difference is an improvement.

    Example:
        >>> bayes = posterior_shares(Estimate("t", mean=0.01, se=0.01, df=9, says=""), rope=0.005)
        >>> [round(share, 3) for share in (bayes.worse, bayes.equivalent, bayes.better)]
        [0.084, 0.231, 0.685]
    """
    posterior: Any = Posterior  # its default, 0, would have pyright think that a ROPE is an integer
    below, *inside, above = map(float, posterior(estimate.mean, estimate.se**2, estimate.df, rope).probs())
    worse, better = (below, above) if higher_is_better else (above, below)
    return Bayes(rope, worse, sum(inside), better)
