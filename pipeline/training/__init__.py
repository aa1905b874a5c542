"""Trainings from settings: on this machine or on Ray workers, with a log for people and for TensorBoard."""
