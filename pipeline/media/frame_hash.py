"""What "the same frames" means: one hash over the hashes of single frames.

So parts of a video can be hashed apart, on several machines, and the whole has the same hash as if it were made in one
piece: SHA-256 can't be continued from the hash of what came before.
"""

from __future__ import annotations

import hashlib

import numpy as np

DIGEST_BYTES = hashlib.sha256().digest_size


def frame_digests(frames: np.ndarray) -> bytes:
    """uint8 [n, H, W, 3], contiguous -> the SHA-256 of each frame's bytes, one behind the other."""
    return b"".join(hashlib.sha256(frame.data).digest() for frame in frames)


def frames_sha256(digests: bytes | bytearray) -> str:
    """64 hex digits: the SHA-256 of all frames' `frame_digests`, in order."""
    return hashlib.sha256(digests).hexdigest()
