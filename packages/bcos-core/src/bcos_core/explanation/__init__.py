"""Exact explanations: what each input contributed to an output."""

from .comparison import Comparison, compare
from .contribution import EncodingModel, Explanation, explain
from .exactness import ModuleExactness, check_exactness
from .mode import explanation_mode
from .render import render_rgba

__all__ = [
    "Comparison",
    "EncodingModel",
    "Explanation",
    "ModuleExactness",
    "check_exactness",
    "compare",
    "explain",
    "explanation_mode",
    "render_rgba",
]
