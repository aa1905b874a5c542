"""The same video under other tags."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import av

from pipeline.media.mp4 import MP4_OPTIONS

_MUXER_TAGS = frozenset({"major_brand", "minor_version", "compatible_brands", "encoder"})
"""What a reader tells of the file's form among its tags; the muxer writes it by itself."""


def retag(source: Path, target: Path, tags: Mapping[str, str]) -> None:
    """Copy an MP4 of `pipeline.media.encode` packet by packet; ``tags`` are laid over its own.

    Nothing is decoded or encoded: frames, sound and times stay what they are. Raises `av.FFmpegError`.
    """
    with (
        av.open(str(source)) as found,
        av.open(str(target), "w", format="mp4", container_options=MP4_OPTIONS) as made,
    ):
        own = {name: value for name, value in found.metadata.items() if name not in _MUXER_TAGS}
        made.metadata.update({**own, **tags})
        streams: dict[int, Any] = {}
        for stream in (*found.streams.video, *found.streams.audio):
            streams[stream.index] = made.add_stream_from_template(stream)
        for packet in found.demux([found.streams[index] for index in streams]):
            # The last one of a stream is empty and only says so.
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                made.mux(packet)
