"""Regression: tables and series whose predictions account for themselves."""
