"""Run keeping: configuration, seeds, splits, checkpoints, tracking. One home for what every package's runs share."""
