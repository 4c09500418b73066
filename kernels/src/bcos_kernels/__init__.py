"""The B-cos scaling as one operator, forward and backward, on CPU and GPU.

``scale`` works wherever torch does; ``build_report`` says which devices have a compiled kernel.
"""

from ._library import BuildReport, build_report
from .batch_norm import uncentred_batch_norm
from .ops import scale

__all__ = ["BuildReport", "build_report", "scale", "uncentred_batch_norm"]
