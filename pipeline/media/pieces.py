"""Pieces: what a decoder in a process of its own says, as plain facts and raw arrays over a socket.

No pickle: what comes from a process that opens strangers' files is never run.
"""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

_LENGTH = struct.Struct("!I")
_MAX_HEADER_BYTES = 1 << 20
_KINDS = "buif"


@dataclass(frozen=True)
class Piece:
    """One message: facts that JSON can hold, and arrays of numbers."""

    facts: dict[str, Any] = field(default_factory=dict)
    arrays: dict[str, np.ndarray] = field(default_factory=dict)


def send_piece(end: socket.socket, piece: Piece) -> None:
    """Send it whole. Raises OSError when nobody listens."""
    arrays = {name: np.ascontiguousarray(array) for name, array in piece.arrays.items()}
    shapes = {name: [array.dtype.str, list(array.shape)] for name, array in arrays.items()}
    header = json.dumps({"facts": piece.facts, "arrays": shapes}).encode()
    end.sendall(_LENGTH.pack(len(header)) + header)
    for array in arrays.values():
        if array.size:
            end.sendall(array.reshape(-1).view(np.uint8).data)


def receive_piece(end: socket.socket, before_read: Callable[[], None] = lambda: None) -> Piece:
    """The next piece; ``before_read`` is called before every read, to set the socket's time limit.

    Raises EOFError at the end of the stream, TimeoutError, and ValueError for what is no piece.
    """
    start = bytearray(_LENGTH.size)
    _fill(end, start, before_read)
    (length,) = _LENGTH.unpack(start)
    if length > _MAX_HEADER_BYTES:
        raise ValueError(f"expected a header of at most {_MAX_HEADER_BYTES} bytes, found {length}")
    text = bytearray(length)
    _fill(end, text, before_read)
    header = json.loads(text)
    arrays = {}
    for name, (dtype, shape) in header["arrays"].items():
        if np.dtype(dtype).kind not in _KINDS:
            raise ValueError(f"expected numbers, found {dtype}")
        arrays[name] = np.empty(shape, dtype)
        if arrays[name].size:
            _fill(end, arrays[name].reshape(-1).view(np.uint8).data, before_read)
    return Piece(header["facts"], arrays)


def _fill(end: socket.socket, buffer: bytearray | memoryview, before_read: Callable[[], None]) -> None:
    view = memoryview(buffer)
    while view:
        before_read()
        count = end.recv_into(view)
        if not count:
            raise EOFError
        view = view[count:]
