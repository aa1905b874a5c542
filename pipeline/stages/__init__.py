"""The four stages: crop, features, motion, render. Each is a callable class that Ray keeps in an actor."""

STAGE_VERSIONS = {"crop": 1, "features": 1, "motion": 1, "render": 2}
"""Raised when a stage's results change: what older versions made is then not reused."""
