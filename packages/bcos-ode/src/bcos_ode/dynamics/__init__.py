"""Dynamics: vector fields fitted to trajectories, solved, scored and explained."""
