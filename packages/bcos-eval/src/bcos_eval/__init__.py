"""Evaluation of B-cos networks. Nothing is here yet."""
