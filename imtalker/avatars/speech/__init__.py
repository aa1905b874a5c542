"""Speech with exact timing, and the faces people make while they talk."""
