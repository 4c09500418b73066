"""Student t, corrected, Bayesian: what a difference between arms is worth."""
