"""Evaluation of B-cos networks: studies, statistics, attribution methods, localisation, reports."""
