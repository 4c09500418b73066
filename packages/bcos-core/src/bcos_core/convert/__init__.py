"""Ordinary networks made into B-cos networks that keep what they learned."""

from .bcosify import ConvertedModel, bcosify
from .report import ConversionReport, Converted

__all__ = ["ConversionReport", "Converted", "ConvertedModel", "bcosify"]
