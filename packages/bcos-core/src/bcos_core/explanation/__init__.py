"""Exact explanations: what each input contributed to an output."""

from .contribution import EncodingModel, Explanation, explain
from .mode import explanation_mode
from .render import render_rgba

__all__ = ["EncodingModel", "Explanation", "explain", "explanation_mode", "render_rgba"]
