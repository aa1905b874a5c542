"""Procedural talking avatars: portraits whose pose, gaze, mouth and landmarks are known exactly."""

from imtalker.avatars.avatar import Rendering, render
from imtalker.avatars.identity import Identity, draw_identity
from imtalker.avatars.state import NEUTRAL, STATE_FIELDS, STATE_RANGES, AvatarState

__all__ = [
    "NEUTRAL",
    "STATE_FIELDS",
    "STATE_RANGES",
    "AvatarState",
    "Identity",
    "Rendering",
    "draw_identity",
    "render",
]
