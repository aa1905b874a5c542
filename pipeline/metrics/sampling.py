"""Which of an item's frames costly metrics look at."""

from __future__ import annotations

from pipeline.metrics.catalogue import Level

ENCODED_EVERY = 40
"""Of so many frames one is given to networks, the middle one: encoding costs about as much as rendering."""

COMPARED_EVERY = 10
"""Of so many frames one is compared with the driver's, the first one."""


DESCRIBED_EVERY = 250
"""Of so many frames dlib looks at one, the middle one: a look takes some 0.15 s."""

DESCRIBED_EVERY_AT_FULL = 25


def is_encoded(index: int, frames: int, level: Level) -> bool:
    """Whether networks see the frame ``index`` of ``frames``: at level full all."""
    if level == "full":
        return True
    # The middle of every whole stretch, so that no clip has more than its share.
    at = index - ENCODED_EVERY // 2
    return at % ENCODED_EVERY == 0 and index + ENCODED_EVERY // 2 <= frames


def is_judged(index: int, frames: int, level: Level) -> bool:
    """As `is_encoded`, but also the middle frame of a clip that is too short to have one encoded."""
    return is_encoded(index, frames, level) or (frames < ENCODED_EVERY and index == frames // 2)


def is_described(index: int, frames: int, level: Level) -> bool:
    """Whether dlib looks at the frame ``index`` of ``frames``: at one of each item at least."""
    every = min(DESCRIBED_EVERY_AT_FULL if level == "full" else DESCRIBED_EVERY, max(frames, 1))
    return index % every == every // 2


def compared_every(level: Level) -> int:
    """The step between frames that are compared with the driver's."""
    return 1 if level == "full" else COMPARED_EVERY
