"""Small pictures of videos, one frame of each, for a page that shows some of many."""

from __future__ import annotations

import base64
import io
import queue
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from pipeline.config import InputLimits
from pipeline.errors import CannotRun, InputError, ItemError
from pipeline.media.reader import MediaReader
from pipeline.report.source import Source

_SIDE = 144
"""Pixels of the longer side at most."""
_QUALITY = 72
_WORKERS = 2
_MIDDLE_UP_TO = 1500
"""Frames up to which a video's middle is decoded; of a longer one it is the first picture, which costs less."""
_LIMITS = InputLimits(decode_floor_s=15.0, decode_s_per_s=0.25, max_file_bytes=500_000_000)


@dataclass
class Pictures:
    """What was tried, and what came of it."""

    asked: int = 0
    by_row: dict[int, str] = field(default_factory=dict)
    """``data:`` URLs of JPEGs."""
    failed: dict[int, str] = field(default_factory=dict)
    """Why there is none, by row."""
    seconds: float = 0.0

    @property
    def out_of_time(self) -> int:
        return self.asked - len(self.by_row) - len(self.failed)


def take_pictures(source: Source, rows: Iterable[int], seconds: float) -> Pictures:
    """A picture of each of the rows' videos, the first rows first, until ``seconds`` are over.

    Videos are decoded in processes that can be killed (`pipeline.media.sandbox`). Nothing that a video or the storage
    does is raised, or waited for longer than that.
    """
    started = time.monotonic()
    wanted = [row for row in dict.fromkeys(rows) if row in source.videos]
    pictures = Pictures(asked=len(wanted))
    todo: queue.SimpleQueue[int] = queue.SimpleQueue()
    done: queue.SimpleQueue[tuple[int, str, str]] = queue.SimpleQueue()
    over = threading.Event()
    frames = source.column("frames")
    for row in wanted:
        todo.put(row)

    def work() -> None:
        reader = MediaReader(_LIMITS)
        while not over.is_set():
            try:
                row = todo.get_nowait()
            except queue.Empty:
                return
            try:
                done.put((row, _picture(source, reader, source.videos[row], frames[row] or 1), ""))
            except Exception as exc:  # noqa: BLE001  (a page without one picture is still a page)
                done.put((row, "", _why(exc)))

    for number in range(min(_WORKERS, len(wanted))):
        # Daemons, so that a store that never answers doesn't hold the program's end.
        threading.Thread(target=work, name=f"picture-{number}", daemon=True).start()
    while len(pictures.by_row) + len(pictures.failed) < len(wanted):
        left = started + seconds - time.monotonic()
        try:
            row, url, why = done.get(timeout=max(left, 0.0))
        except queue.Empty:
            break
        if url:
            pictures.by_row[row] = url
        else:
            pictures.failed[row] = why
    over.set()
    pictures.seconds = time.monotonic() - started
    return pictures


def _picture(source: Source, reader: MediaReader, key: str, frames: int) -> str:
    if source.store.is_local:
        return _encoded(reader, Path(source.store.path(key)), frames)
    size = int(source.store.fs.info(source.store.path(key)).get("size") or 0)
    if size > _LIMITS.max_file_bytes:
        raise InputError(f"the video has {size} bytes")
    with TemporaryDirectory(prefix="imtalker-picture-") as folder:
        path = Path(folder) / "video.mp4"
        source.store.get_file(key, path)
        return _encoded(reader, path, frames)


def _encoded(reader: MediaReader, path: Path, frames: int) -> str:
    picture = None
    for at, sampled in enumerate(reader.sampled(path, every=frames // 2 + 1)):
        picture = sampled
        if at == 1 or frames > _MIDDLE_UP_TO:
            break
    if picture is None:
        raise InputError("the video has no pictures")
    image = Image.fromarray(picture)
    image.thumbnail((_SIDE, _SIDE))
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _why(exc: Exception) -> str:
    if isinstance(exc, FileNotFoundError):
        return "the video is not there"
    if isinstance(exc, ItemError | CannotRun):
        return str(exc)
    return f"{type(exc).__name__}: {exc}"
