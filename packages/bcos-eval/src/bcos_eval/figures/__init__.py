"""Figures of scores and explanations; none of them trains or tests anything."""
