"""B-cos layers as operators, forward and backward, on CPU and GPU.

``conv2d`` and ``linear`` work wherever torch does; ``build_report`` says which devices have a compiled kernel.
"""

from ._library import BuildReport, build_report
from .batch_norm import uncentred_batch_norm
from .ops import conv2d, linear

__all__ = ["BuildReport", "build_report", "conv2d", "linear", "uncentred_batch_norm"]
