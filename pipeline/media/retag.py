"""The same video under other tags."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import av

from pipeline.media.mp4 import MP4_OPTIONS


def retag(source: Path, target: Path, tags: Mapping[str, str]) -> None:
    """Copy an MP4 of `pipeline.media.encode` packet by packet, under ``tags`` in place of its own.

    A signed manifest is left out, as it says what was before. Nothing is decoded or encoded: frames, sound and times
    stay what they are. Raises `av.FFmpegError`.
    """
    with (
        av.open(str(source)) as found,
        av.open(str(target), "w", format="mp4", container_options=MP4_OPTIONS) as made,
    ):
        made.metadata.update(tags)
        streams: dict[int, Any] = {}
        for stream in (*found.streams.video, *found.streams.audio):
            streams[stream.index] = made.add_stream_from_template(stream)
        for packet in found.demux([found.streams[index] for index in streams]):
            # The last one of a stream is empty and only says so.
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                made.mux(packet)
