"""Beyond where: do explanations say what the network does?"""

from .correlation import faithfulness_correlation, rank_correlation, similarity
from .deletion import area, deletion_curve
from .metrics import METRICS, FaithfulnessMetric, measure
from .randomisation import compare_randomised, compare_targets, randomised_models
from .sparseness import gini_index
from .stability import sensitivity

__all__ = [
    "METRICS",
    "FaithfulnessMetric",
    "area",
    "compare_randomised",
    "compare_targets",
    "deletion_curve",
    "faithfulness_correlation",
    "gini_index",
    "measure",
    "randomised_models",
    "rank_correlation",
    "sensitivity",
    "similarity",
]
