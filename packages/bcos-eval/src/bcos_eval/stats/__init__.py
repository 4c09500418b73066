"""Student t, corrected, Bayesian: what a difference between arms is worth."""

from .comparison import compare_arms
from .metric import higher_is_better, is_share
from .result import ArmSummary, Bayes, Comparison, Contrast, Omnibus, Power, TestResult
from .text import to_lines

__all__ = [
    "ArmSummary",
    "Bayes",
    "Comparison",
    "Contrast",
    "Omnibus",
    "Power",
    "TestResult",
    "compare_arms",
    "higher_is_better",
    "is_share",
    "to_lines",
]
