"""Render: motion becomes frames, frames become a video, and the item is committed."""

from __future__ import annotations

import hashlib
import resource
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from pipeline.config import RunSettings
from pipeline.errors import ItemError
from pipeline.fetch import LocalInput, fetched, file_sha256
from pipeline.ledger import Ledger, Record
from pipeline.media.encode import VideoWriter
from pipeline.stages.base import Stage
from pipeline.talker import Arrays, Talker, TalkerInfo, load
from pipeline.tasks import AssetTask, ItemTask

_IN_FLIGHT = 3
"""Batches of frames between renderer and encoder: enough to overlap the two, and a bound on memory."""


class EncoderThread:
    """Hashes and encodes frames beside the thread that renders them; PyAV releases the interpreter meanwhile."""

    def __init__(self, writer: VideoWriter) -> None:
        self._writer = writer
        self._digest = hashlib.sha256()
        self._pool = ThreadPoolExecutor(1, "encoder")
        self._pending: deque[Future[None]] = deque()
        self.seconds = 0.0

    def put(self, frames: np.ndarray) -> None:
        """uint8 [n, H, W, 3]; waits while the encoder is behind. Raises what the encoder raised."""
        while len(self._pending) >= _IN_FLIGHT:
            self._pending.popleft().result()
        self._pending.append(self._pool.submit(self._encode, frames))

    def finish(self) -> str:
        """Wait for the last frame; the sha256 of all frames as uint8 RGB. Raises what the encoder raised."""
        while self._pending:
            self._pending.popleft().result()
        return self._digest.hexdigest()

    def close(self) -> None:
        self._pool.shutdown(cancel_futures=True)

    def _encode(self, frames: np.ndarray) -> None:
        started = time.perf_counter()
        self._digest.update(np.ascontiguousarray(frames).data)
        self._writer.write(frames)
        self.seconds += time.perf_counter() - started


class RenderStage(Stage[ItemTask]):
    """The last stage. It also writes the record of every item that reaches it, failed ones included."""

    name = "render"
    task_type = ItemTask

    def __init__(self, settings: RunSettings, info: TalkerInfo, output: str, threads: int) -> None:
        super().__init__(settings, info, output, threads)
        self.talker: Talker = load(info.model, settings, info)
        self.talker.warm(self.name)
        self.ledger = Ledger(self.store)
        self._prepared: tuple[str, Any] = ("", None)

    def process(self, task: ItemTask) -> None:
        assert task.motion is not None and task.frames is not None  # noqa: S101  (narrows: motion has run)
        kept = self.store.get_arrays(task.motion)
        motion = {name: array[: task.frames] for name, array in kept.items() if array.ndim}
        prepared = self._prepare(task.portrait)
        with TemporaryDirectory(prefix="imtalker-render-") as folder:
            path = Path(folder) / "video.mp4"
            with self._sound(task) as sound:
                video = self._encode(task, prepared, motion, path, sound)
            key = f"videos/{task.key}.mp4"
            video |= {"uri": self.store.url(key), "size": path.stat().st_size, "sha256": file_sha256(path)}
            self.store.put_file(path, key)
        task.video = video
        task.computed.append(self.name)

    def finish(self, task: ItemTask) -> None:
        self.ledger.write(Record.of(task, self.settings, self.info))

    def _encode(
        self, task: ItemTask, prepared: Any, motion: Arrays, path: Path, sound: LocalInput | None
    ) -> dict[str, Any]:
        started, count = time.perf_counter(), 0
        size = self.info.resolution
        with VideoWriter(
            path,
            width=size,
            height=size,
            fps=self.info.fps,
            settings=self.settings.video,
            audio=sound.path if sound else None,
            tags=self._tags(task),
            limits=self.settings.limits,
        ) as writer:
            encoder = EncoderThread(writer)
            try:
                for frames in self.talker.render(prepared, motion):
                    encoder.put(frames)
                    count += len(frames)
                frames_sha256 = encoder.finish()
            finally:
                encoder.close()
        if count != task.frames:
            raise ItemError(
                "bug", f"{count} frames were rendered where {task.frames} were due", hint="please report it"
            )
        elapsed = time.perf_counter() - started
        return {
            "frames": count,
            "frames_sha256": frames_sha256,
            "width": size,
            "height": size,
            "duration_s": count / self.info.fps,
            "has_audio": sound is not None,
            "render_s": round(elapsed, 4),
            "encode_s": round(encoder.seconds, 4),
            "peak_memory_bytes": peak_memory_bytes(),
        }

    def _prepare(self, portrait: AssetTask) -> Any:
        """The prepared source; the last one is kept, because items come grouped by portrait."""
        assert portrait.picture is not None and portrait.arrays is not None  # noqa: S101  (narrows the types)
        if self._prepared[0] != portrait.arrays:
            image = self.store.get_arrays(portrait.picture)["image"]
            arrays = self.store.get_arrays(portrait.arrays)
            self._prepared = (portrait.arrays, self.talker.prepare(image, arrays))
        return self._prepared[1]

    @contextmanager
    def _sound(self, task: ItemTask) -> Iterator[LocalInput | None]:
        """The file whose sound the video gets: the item's recording, else the driver if it has a sound track."""
        if task.audio is not None:
            with fetched(task.audio.uri, self.settings) as source:
                yield source
        elif task.driver is not None and task.driver.facts.get("has_audio"):
            with fetched(task.driver.uri, self.settings) as source:
                yield source
        else:
            yield None

    def _tags(self, task: ItemTask) -> dict[str, str]:
        return {
            "comment": "AI-generated video",
            "imtalker_item": task.key,
            "imtalker_model": self.info.model,
            "imtalker_weights": self.info.weights,
            "imtalker_seed": str(task.seed),
            "imtalker_fingerprint": task.fingerprint or "",
        }


def peak_memory_bytes() -> int:
    """Peak of the device's allocator where there is one, else of the process (Linux counts it in KiB)."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
