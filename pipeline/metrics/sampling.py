"""Which of an item's frames costly metrics look at."""

from __future__ import annotations

from pipeline.metrics.catalogue import Level

ENCODED_EVERY = 40
"""Of so many frames one is given to networks, the middle one: encoding costs about as much as rendering."""

COMPARED_EVERY = 10
"""Of so many frames one is compared with the driver's, the first one."""


def is_encoded(index: int, frames: int, level: Level) -> bool:
    """Whether networks see the frame ``index`` of ``frames``: at level full all."""
    if level == "full":
        return True
    # The middle of every whole stretch, so that no clip has more than its share.
    at = index - ENCODED_EVERY // 2
    return at % ENCODED_EVERY == 0 and index + ENCODED_EVERY // 2 <= frames


def compared_every(level: Level) -> int:
    """The step between frames that are compared with the driver's."""
    return 1 if level == "full" else COMPARED_EVERY
