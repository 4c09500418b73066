"""Ablations: which arms they have, and what comes out beside the study's page: one table, one picture."""
