"""The motion generator: flow matching from audio features to motion."""
