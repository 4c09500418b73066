"""The B-cos scaling as one operator, forward and backward, on CPU and GPU.

``scale`` works wherever torch does; ``build_report`` says which devices have a compiled kernel.
"""

from .ops import scale  # declares the schema: before the libraries that implement it
from ._library import BuildReport, build_report

__all__ = ["BuildReport", "build_report", "scale"]
