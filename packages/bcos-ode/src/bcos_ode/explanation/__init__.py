"""Exact accounts of fields and of what they add up to along a trajectory."""
