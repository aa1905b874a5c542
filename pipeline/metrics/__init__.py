"""Numbers that say whether a video is good: one file for each family, all listed in `pipeline.metrics.catalogue`."""
