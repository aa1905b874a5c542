"""Procedural avatars as files: portraits, talking clips with sound, and what is true of every frame."""
