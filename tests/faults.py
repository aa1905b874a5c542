"""Every kind of fault in one manifest, and stages that have the faults that no file can bring about."""

from __future__ import annotations

import socket
import threading
import wave
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from PIL import Image

from pipeline.config import InputLimits, RetrySettings, RunSettings
from pipeline.execute import Executor
from pipeline.media import sandbox
from pipeline.stages.base import Stage
from pipeline.stages.crop import CropStage
from pipeline.stages.features import FeaturesStage
from pipeline.stages.motion import MotionStage
from pipeline.stages.render import RenderStage
from pipeline.talker import Arrays, MotionRequest
from pipeline.tasks import ItemTask
from tests import faulty_decoder
from tests.faulty_store import FaultyStore, Trouble
from tests.media_files import cut_file, face_picture, grey_frame, sine, smooth_picture, write_audio, write_video
from tests.runs import DEMO, TINY, demo

NAN_SEED = 666

TROUBLES = {
    "refused.wav": Trouble("refuses"),
    "down.wav": Trouble("busy"),
    "storm.wav": Trouble("busy", times=12),
    "reset.png": Trouble("breaks", times=25),
    "slow.wav": Trouble("slow"),
}


def faulty_settings(store: FaultyStore) -> RunSettings:
    """Narrow limits, and decoders that no other run has."""
    limits = InputLimits(
        max_file_bytes=4_000_000,
        max_image_pixels=16_000_000,
        max_decoder_bytes=(2 << 30) + 4096,
        decode_floor_s=8.0,
    )
    retries = RetrySettings(attempts=3, first_wait_s=0.01)
    return TINY.model_copy(
        update={"limits": limits, "retries": retries, "storage_options": store.storage_options, "max_seconds": 0.12}
    )


@dataclass
class Faults:
    """Rows of a manifest, and what each must come to: (kind, stage, word of the message), or None for a video."""

    folder: Path
    bucket: str
    store: FaultyStore
    endless: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    expected: dict[str, tuple[str, str, str] | None] = field(default_factory=dict)

    def add(self, id: str, expected: tuple[str, str, str] | None, **columns: Any) -> None:
        row = {"id": id, "image": demo("ana.png"), **columns}
        if "driver" not in row:
            row.setdefault("audio", demo("english.wav"))
        self.rows.append(row)
        self.expected[id] = expected

    def stored(self, name: str, source: str) -> str:
        """A file of the demo in the faulty store."""
        self.store.server.client.put_object(Bucket=self.bucket, Key=f"media/{name}", Body=(DEMO / source).read_bytes())
        return f"s3://{self.bucket}/media/{name}"

    def poisoned(self, name: str, source: str, word: bytes) -> str:
        """A file of the demo that a faulty decoder stumbles over."""
        (self.folder / name).write_bytes((DEMO / source).read_bytes() + word)
        return str(self.folder / name)

    def picture(self, name: str, pixels: np.ndarray) -> str:
        Image.fromarray(pixels).save(self.folder / name)
        return str(self.folder / name)


def all_faults(faults: Faults) -> Faults:
    """At least one row for every kind of fault, good ones before, between and after them."""
    faults.add("good-first", None)
    _storage(faults)
    faults.add("good-second", None, image=demo("kofi.jpg"), driver=demo("driver.mp4"))
    _media(faults)
    _faces(faults)
    _decoders(faults)
    _stages(faults)
    _rows(faults)
    faults.add("good-last", None, image=demo("mei.webp"), seed=5)
    return faults


def _storage(faults: Faults) -> None:
    s3 = f"s3://{faults.bucket}/media"
    faults.add("missing-key", ("input", "features", "does not exist"), audio=f"{s3}/nothing.wav")
    refused, down = faults.stored("refused.wav", "english.wav"), faults.stored("down.wav", "english.wav")
    faults.add("refused", ("infrastructure", "features", "was refused"), audio=refused)
    faults.add("down", ("infrastructure", "features", "reading s3://"), audio=down)
    faults.add("storm", None, audio=faults.stored("storm.wav", "english.wav"))
    faults.add("reset", None, image=faults.stored("reset.png", "ana.png"))
    faults.add("slow", None, audio=faults.stored("slow.wav", "english.wav"))
    faults.add("endless", ("input", "features", "larger than the limit"), audio=faults.endless)


def _media(faults: Faults) -> None:
    folder = faults.folder
    # Its index comes at its end, as in most files; the demo's comes first, and what is left of that is long enough.
    whole = write_video(folder / "whole.mp4", [face_picture(128)] * 25)
    cut = cut_file(whole, folder / "cut.mp4", 0.6)
    faults.add("truncated-mp4", ("input", "crop", "cut.mp4"), driver=str(cut))
    cut = cut_file(DEMO / "driver.mp4", folder / "half.mp4", 0.6)
    faults.add("truncated-beyond-the-end", None, driver=str(cut))
    faults.add("no-frames-mp4", ("input", "crop", "empty.mp4"), driver=str(video_without_frames(folder / "empty.mp4")))
    with wave.open(str(folder / "none.wav"), "wb") as silent:
        silent.setparams((1, 2, 16_000, 0, "NONE", ""))
    faults.add("no-sample", ("input", "features", "none.wav"), audio=str(folder / "none.wav"))
    faults.add(
        "one-sample", None, audio=str(write_audio(folder / "one.wav", sine(16_000, 1)[None], 16_000, "pcm_s16le"))
    )
    (folder / "picture.wav").write_bytes((DEMO / "ana.png").read_bytes())
    faults.add("wrong-extension", ("input", "features", "picture.wav"), audio=str(folder / "picture.wav"))
    Image.new("1", (7680, 4320)).save(folder / "8k.png")
    faults.add("8k-image", ("input", "crop", "7680x4320"), image=str(folder / "8k.png"))


def _faces(faults: Faults) -> None:
    face = face_picture(128)
    faults.add(
        "no-face", ("input", "crop", "expected a face"), image=faults.picture("nobody.png", smooth_picture(1, 128, 128))
    )
    two = faults.picture("two.png", np.concatenate([face, face], axis=1))
    faults.add("two-faces", None, image=two)
    side = np.concatenate([np.broadcast_to(face[:, :1], (128, 70, 3)), face[:, 70:]], axis=1)
    faults.add("side-face", ("input", "crop", "expected a face"), image=faults.picture("side.png", side))
    grey = video_of_nobody(faults.folder / "nobody.mp4")
    faults.add("driver-without-face", ("input", "crop", "no face found"), driver=str(grey))


def _decoders(faults: Faults) -> None:
    crash = faults.poisoned("crash.png", "ana.png", faulty_decoder.CRASHES)
    faults.add("decoder-crash", ("input", "crop", "the decoder died (SIGSEGV)"), image=crash)
    crash = faults.poisoned("crash.wav", "english.wav", faulty_decoder.CRASHES)
    faults.add("decoder-crash-audio", ("input", "features", "the decoder died (SIGSEGV)"), audio=crash)
    crash = faults.poisoned("track.wav", "english.wav", faulty_decoder.CRASHES_LATE)
    faults.add("decoder-crash-late", ("input", "render", "the decoder died (SIGSEGV)"), audio=crash)
    hang = faults.poisoned("hang.png", "ana.png", faulty_decoder.HANGS)
    faults.add("decoder-hang", ("input", "crop", "took longer than 8 s"), image=hang)
    full = faults.poisoned("memory.wav", "english.wav", faulty_decoder.FILLS)
    faults.add("decoder-memory", ("input", "features", "more memory"), audio=full)


def _stages(faults: Faults) -> None:
    faults.add("nan", ("model", "motion", "not finite"), seed=NAN_SEED)
    faults.add("gpu-memory", ("infrastructure", "render", "out of memory"), seed=1)
    faults.add("disk-full", ("infrastructure", "render", "No space left on device"), seed=2)
    faults.add("defect", ("bug", "render", "KeyError"), seed=3)


def _rows(faults: Faults) -> None:
    np.save(faults.folder / "pose.npy", np.full((10, 3), np.nan, np.float32))
    faults.add("bad-pose", ("input", "motion", "finite"), pose=str(faults.folder / "pose.npy"))
    faults.add("/etc/absolute", ("input", "plan", "id"))
    faults.add("../climbing", ("input", "plan", "id"))
    faults.add("nothing-to-say", ("input", "plan", "audio"), audio=None)
    faults.add("out-of-range", ("input", "plan", "nfe"), nfe=-1)


def video_without_frames(path: Path) -> Path:
    """A picture track that no picture was ever put into, and no sound."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()
    return path


def video_of_nobody(path: Path) -> Path:
    return write_video(path, [grey_frame(100, 128, 128)] * 10)


class FaultyDecoders:
    """A stage whose files are opened by `tests.faulty_decoder`."""

    def __init__(self, *arguments: Any) -> None:
        sandbox.COMMAND = faulty_decoder.COMMAND
        super().__init__(*arguments)


class FaultyCrop(FaultyDecoders, CropStage):
    pass


class FaultyFeatures(FaultyDecoders, FeaturesStage):
    pass


class FaultyMotion(MotionStage):
    def compute(self, works: Sequence[MotionRequest]) -> list[Arrays]:
        found = super().compute(works)
        return [
            {"motion": np.full_like(arrays["motion"], np.nan)} if work.seed == NAN_SEED else arrays
            for work, arrays in zip(works, found, strict=True)
        ]


class FaultyRender(FaultyDecoders, RenderStage):
    def process(self, task: ItemTask) -> None:
        match task.key:
            case "gpu-memory":
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
            case "defect":
                raise KeyError("defect")
            case "disk-full":
                with full_disk():
                    super().process(task)
            case _:
                super().process(task)


@contextmanager
def full_disk() -> Iterator[None]:
    """The device that is always full in the place of the video's file."""
    opened = av.open

    def onto_full_disk(file: str, mode: str = "r", **options: Any) -> Any:
        return opened("/dev/full" if mode == "w" else file, mode, **options)

    av.open = onto_full_disk
    try:
        yield
    finally:
        av.open = opened


FAULTY: dict[type[Stage[Any]], type[Stage[Any]]] = {
    CropStage: FaultyCrop,
    FeaturesStage: FaultyFeatures,
    MotionStage: FaultyMotion,
    RenderStage: FaultyRender,
}


def with_faults(executor: Executor, stages: Mapping[type[Stage[Any]], type[Stage[Any]]] = FAULTY) -> Executor:
    """The executor, with faulty ``stages`` in the places of others."""
    run_stages = executor.run

    def run(tasks: Sequence[Any], wished: Sequence[type[Stage[Any]]], *, alone: bool = False) -> Iterator[Any]:
        return run_stages(tasks, [stages[stage] for stage in wished], alone=alone)

    executor.run = run  # type: ignore[method-assign]
    return executor


@contextmanager
def endless_stream() -> Iterator[str]:
    """The address of a sound that never ends."""
    head = (DEMO / "english.wav").read_bytes()

    def serve(listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=pour, args=(client,), daemon=True).start()

    def pour(client: socket.socket) -> None:
        with client, suppress(OSError):
            request = client.recv(1 << 16)
            client.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
            while request.startswith(b"GET"):
                client.sendall(head)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/endless.wav"
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
