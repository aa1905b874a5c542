"""The process that opens strangers' files: it decodes what it is asked for, one file after the other.

Started by `pipeline.media.sandbox` alone. It imports neither torch nor Ray, and is told nothing secret.
"""

from __future__ import annotations

import os
import resource
import socket
import sys
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config import InputLimits
from pipeline.errors import InputError, ItemError, error_record
from pipeline.media.audio import audio_frames, mono_16k_pieces
from pipeline.media.driver import DriverReader, sample_frames
from pipeline.media.image import load_image
from pipeline.media.pieces import Piece, receive_piece, send_piece
from pipeline.media.probe import header_seconds, open_container, probe

Job = Callable[..., Iterator[Piece]]

_SLOWEST_BYTES_A_SECOND = 4_000
"""Sound of 32 kbit/s: how long a file may last whose header doesn't say."""
_SOUND_SECONDS = 1
"""Sound is sent in pieces of about so long."""


def _image(path: Path, limits: InputLimits) -> Iterator[Piece]:
    yield Piece(arrays={"image": load_image(path, limits)})


def _facts(path: Path, limits: InputLimits) -> Iterator[Piece]:
    yield Piece(asdict(probe(path, limits)))


def _mono_16k(path: Path, limits: InputLimits, max_seconds: float | None) -> Iterator[Piece]:
    for samples in mono_16k_pieces(path, limits, max_seconds):
        yield Piece(arrays={"waveform": samples})


def _sampled(path: Path, limits: InputLimits, every: int) -> Iterator[Piece]:
    for picture in sample_frames(path, limits, every):
        yield Piece(arrays={"picture": picture})


def _driver(path: Path, limits: InputLimits, size: int, max_seconds: float | None, every: int) -> Iterator[Piece]:
    reader = DriverReader(path, size, limits, max_seconds=max_seconds, every=every)
    for window in reader:
        yield Piece({"decoder": reader.decoder}, {"window": window})
    # The decoder may have changed on the way.
    yield Piece({"decoder": reader.decoder})


def _sound(path: Path, limits: InputLimits) -> Iterator[Piece]:
    """Frames as they are, several in one piece; all that comes before a fault, and then the fault."""
    held: list[np.ndarray] = []
    samples = 0
    form: dict[str, Any] = {}
    failure: ItemError | None = None
    try:
        for frame in audio_frames(path, limits):
            form = {"rate": frame.sample_rate, "format": frame.format.name, "layout": frame.layout.name}
            held.append(frame.to_ndarray())
            samples += frame.samples
            if samples >= _SOUND_SECONDS * frame.sample_rate:
                yield Piece(form, {"samples": np.concatenate(held, axis=1)})
                held, samples = [], 0
    except ItemError as exc:
        failure = exc
    if held:
        yield Piece(form, {"samples": np.concatenate(held, axis=1)})
    if failure is not None:
        raise failure


JOBS: dict[str, Job] = {
    "image": _image,
    "facts": _facts,
    "mono_16k": _mono_16k,
    "sampled": _sampled,
    "driver": _driver,
    "sound": _sound,
}
"""What can be asked for, by name: each takes a path, limits and options, and gives pieces."""


def main(arguments: list[str]) -> None:
    """Serve the socket ``arguments[0]`` within ``arguments[1]`` bytes of memory until its other end closes."""
    memory = int(arguments[1])
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    # Whoever started this process tells of a crash.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with socket.socket(fileno=int(arguments[0])) as end, suppress(EOFError, ConnectionError):
        send_piece(end, Piece({"says": "ready"}))
        while True:
            request = receive_piece(end).facts
            # A stop may come when the last piece is on its way.
            if request["says"] == "open":
                _serve(end, request)


def _serve(end: socket.socket, request: Mapping[str, Any]) -> None:
    """One file: a reply at once and for every ``next`` after it, until the last one or a ``stop``."""
    pieces = _pieces(request)
    while True:
        try:
            reply = next(pieces, Piece({"says": "end"}))
        except MemoryError:
            # What is left may be in pieces: this process ends.
            send_piece(end, _error(_too_large(request), fatal=True))
            raise EOFError from None
        except Exception as exc:  # noqa: BLE001  (it becomes a value here, and the item's error over there)
            reply = _error(exc)
        send_piece(end, reply)
        if reply.facts["says"] in ("end", "error"):
            return
        if receive_piece(end).facts["says"] == "stop":
            pieces.close()
            send_piece(end, Piece({"says": "end"}))
            return


def _pieces(request: Mapping[str, Any]) -> Generator[Piece, None, None]:
    path, limits = Path(request["path"]), InputLimits.model_validate(request["limits"])
    seconds = _seconds(request["job"], path, limits, request["options"])
    _limit_processor(limits.decoding_s(seconds))
    yield Piece({"says": "begin", "seconds": seconds})
    for piece in JOBS[request["job"]](path, limits, **request["options"]):
        yield Piece({"says": "piece", **piece.facts}, piece.arrays)


def _error(exc: Exception, *, fatal: bool = False) -> Piece:
    return Piece({"says": "error", "fatal": fatal, **error_record(exc, "").as_dict()})


def _too_large(request: Mapping[str, Any]) -> InputError:
    limit = request["limits"]["max_decoder_bytes"]
    return InputError(
        f"decoding {Path(request['path']).name} needs more memory than the limit of {limit} bytes",
        hint="scale the file down or shorten it, or raise limits.max_decoder_bytes",
    )


def _limit_processor(seconds: float) -> None:
    """End this process if it outlives its starter in an endless loop."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    most = ceil(used.ru_utime + used.ru_stime + seconds * (os.cpu_count() or 1)) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (most, resource.RLIM_INFINITY))


def _seconds(job: str, path: Path, limits: InputLimits, options: Mapping[str, Any]) -> float:
    """How much of media is to be decoded at most, in seconds, before any of it is."""
    if job == "image":
        return 0.0
    with open_container(path, limits) as container:
        seconds = header_seconds(container)
    if seconds is None or seconds <= 0:
        seconds = path.stat().st_size / _SLOWEST_BYTES_A_SECOND
    return min(seconds, limits.max_media_seconds, options.get("max_seconds") or limits.max_media_seconds)


if __name__ == "__main__":
    main(sys.argv[1:])
