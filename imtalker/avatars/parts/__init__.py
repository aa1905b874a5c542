"""The parts of an avatar, one a file; each paints itself on a canvas."""
