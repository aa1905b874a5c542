"""A part of a video as a file: encoded segments on their way to whoever joins them, and what is known of their frames.

A zip of plain arrays (never pickles): ``000000.npz`` and so on, one for each closed segment, ``frames.npz`` with
arrays whose first axis is the part's frames, and ``facts.json``.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any
from zipfile import BadZipFile, ZipFile

import av
import numpy as np

from pipeline.errors import ItemError
from pipeline.media.encoders import EncodedSegment

_FRAMES, _FACTS = "frames.npz", "facts.json"
_NUMBERS = ("pts", "dts", "duration")


class PartWriter:
    """Takes a part's segments, in order, and then what is known of its frames.

    The file grows in place: it is to lie in a folder of its own until it is stored as a whole.
    """

    def __init__(self, path: Path) -> None:
        self._zip = ZipFile(path, "w")
        self._segments = 0

    def add(self, segment: EncodedSegment) -> None:
        self._zip.writestr(f"{self._segments:06}.npz", _packed(_arrays_of(segment)))
        self._segments += 1

    def describe(self, frames: Mapping[str, np.ndarray], facts: Mapping[str, Any]) -> None:
        """``frames``: name -> array whose first axis is the part's frames; ``facts``: what JSON can hold."""
        self._zip.writestr(_FRAMES, _packed(frames))
        self._zip.writestr(_FACTS, json.dumps(dict(facts)))
        self._zip.close()

    def close(self) -> None:
        """The segments are all there. The file is closed by `describe`."""

    def discard(self) -> None:
        self._zip.close()


class PartReader:
    """A part's file, read back segment by segment. Raises `ItemError` for one that is not whole."""

    def __init__(self, path: Path) -> None:
        try:
            self._zip = ZipFile(path)
            self.facts: dict[str, Any] = json.loads(self._zip.read(_FACTS))
            self.frames = _unpacked(self._zip.read(_FRAMES))
        except (BadZipFile, KeyError, ValueError) as exc:
            raise ItemError("infrastructure", f"a rendered part can't be read back: {exc}", hint="run again") from exc

    def segments(self) -> Iterator[EncodedSegment]:
        """One at a time."""
        for name in sorted(self._zip.namelist()):
            if name not in (_FRAMES, _FACTS):
                yield _segment_of(_unpacked(self._zip.read(name)))

    def __enter__(self) -> PartReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._zip.close()


def _arrays_of(segment: EncodedSegment) -> dict[str, np.ndarray]:
    """Packets one behind the other, with the frame after which each came; the last ones came after all frames."""
    came = [(frame, packet) for frame, some in enumerate([*segment.packets, segment.tail]) for packet in some]
    packets = [packet for _, packet in came]
    return {
        "header": np.frombuffer(segment.header, np.uint8),
        "frames": np.array(len(segment.packets)),
        "seconds": np.array(segment.seconds),
        "after": np.array([frame for frame, _ in came], np.int64),
        "sizes": np.array([packet.size for packet in packets], np.int64),
        "keys": np.array([packet.is_keyframe for packet in packets], bool),
        **{name: np.array([getattr(packet, name) for packet in packets], np.int64) for name in _NUMBERS},
        "data": np.frombuffer(b"".join(map(bytes, packets)), np.uint8),
    }


def _segment_of(arrays: Mapping[str, np.ndarray]) -> EncodedSegment:
    count = int(arrays["frames"])
    by_frame: list[list[Any]] = [[] for _ in range(count + 1)]
    end = 0
    for index, (frame, size) in enumerate(zip(arrays["after"].tolist(), arrays["sizes"].tolist(), strict=True)):
        packet = av.Packet(arrays["data"][end : end + size].tobytes())
        packet.is_keyframe = bool(arrays["keys"][index])
        for name in _NUMBERS:
            setattr(packet, name, int(arrays[name][index]))
        by_frame[frame].append(packet)
        end += size
    return EncodedSegment(arrays["header"].tobytes(), by_frame[:-1], by_frame[-1], float(arrays["seconds"]))


def _packed(arrays: Mapping[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # the stub forbids any keyword that isn't a bool
    return buffer.getvalue()


def _unpacked(data: bytes) -> dict[str, np.ndarray]:
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}
