"""Fitting networks over variables."""
