"""Defects put into talking clips on purpose, and how many of them the default gates catch.

``python -m tests.pipeline.metrics.injection --clips 100 --model FOLDER`` prints the table of ``docs/metrics.md``.
Without ``--model`` clips are drawn: avatars that say what espeak-ng says, with exact mouths, so a clean clip is clean.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from pipeline.config import InputLimits, VideoSettings
from pipeline.media.audio import decode_mono_16k
from pipeline.media.encode import VideoWriter
from pipeline.media.wav import write_wav
from pipeline.metrics.catalogue import Values
from pipeline.metrics.gates import FLAG, gates_of, judge
from pipeline.metrics.item import Asked, ItemMeter, Source
from pipeline.metrics.pixels import SourceLook
from tests.pipeline.metrics.clip import FPS, RATE, WINDOW, Clip, draw_clip, spoken
from tests.pipeline.metrics.model_clips import model_clips


def measured(clip: Clip, frames: np.ndarray, heard: np.ndarray) -> Values:
    """Metrics of a video with these frames and this sound, that was to be the clip's; written and read back."""
    due = -(-len(clip.sound) * FPS // RATE)
    asked = Asked(due, FPS, clip.codes, WINDOW)
    source = Source(SourceLook.of(clip.portrait, clip.face), clip.identity_vector)
    meter = ItemMeter(asked, source, inspect=clip.inspect)
    for start in range(0, len(frames), 16):
        meter.add(frames[start : start + 16])
    with TemporaryDirectory() as folder:
        sound, video = Path(folder) / "a.wav", Path(folder) / "a.mp4"
        write_wav(sound, heard, RATE)
        size = frames.shape[1]
        settings = VideoSettings(preset="ultrafast", crf=30)
        with VideoWriter(
            video, width=size, height=size, settings=settings, limits=InputLimits(), audio=sound
        ) as writer:
            writer.write(frames)
        meter.listen([clip.sound], [decode_mono_16k(video, InputLimits())])
        return meter.finish(video)


Spoilt = tuple[Clip, np.ndarray, np.ndarray]
"""What was asked for, and the frames and the sound that came out."""


def _late(clip: Clip, other: Clip, rng: np.random.Generator, frames: int) -> Spoilt:
    """Lips follow the sound by so many frames; all else is in order."""
    pictures, codes = np.roll(clip.frames, frames, axis=0), np.roll(clip.codes, frames, axis=0)
    return replace(clip, frames=pictures, codes=codes), pictures, clip.sound


def _wrong_audio(clip: Clip, other: Clip, rng: np.random.Generator) -> Spoilt:
    """Lips of one recording under another: the motion stage was given the wrong features."""
    length = min(len(clip.frames), len(other.frames))
    sound = other.sound[: length * RATE // FPS]
    frames = clip.frames[:length]
    return replace(clip, frames=frames, sound=sound, codes=clip.codes[:length]), frames, sound


def _swapped_audio(clip: Clip, other: Clip, rng: np.random.Generator) -> Spoilt:
    """Lips of the right recording, but another one in the file."""
    return clip, clip.frames, np.resize(other.sound, len(clip.sound))


def _frozen(clip: Clip, other: Clip, rng: np.random.Generator) -> Spoilt:
    start, frames = int(rng.integers(5, len(clip.frames) - 20)), clip.frames.copy()
    frames[start : start + 10] = frames[start]
    return clip, frames, clip.sound


def _black(clip: Clip, other: Clip, rng: np.random.Generator) -> Spoilt:
    start, frames = int(rng.integers(0, len(clip.frames) - 3)), clip.frames.copy()
    frames[start : start + 3] = 0
    return clip, frames, clip.sound


def _dropped(clip: Clip, other: Clip, rng: np.random.Generator) -> Spoilt:
    start = int(rng.integers(5, len(clip.frames) - 10))
    return clip, np.delete(clip.frames, range(start, start + 3), axis=0), clip.sound


def _seam(clip: Clip, other: Clip, rng: np.random.Generator) -> Spoilt:
    """From the first seam on the head stands elsewhere: by a fiftieth of the picture's width."""
    frames, codes = clip.frames.copy(), clip.codes.copy()
    frames[WINDOW:] = np.roll(frames[WINDOW:], max(frames.shape[2] // 50, 1), axis=2)
    codes[WINDOW:, 3] += 0.02
    return replace(clip, frames=frames, codes=codes), frames, clip.sound


def _another(clip: Clip, other: Clip, rng: np.random.Generator) -> Spoilt:
    """The neighbour's frames in the middle of the clip."""
    frames = clip.frames.copy()
    start = len(frames) // 3
    piece = other.frames[start : start + len(frames) // 3]
    frames[start : start + len(piece)] = piece
    return clip, frames, clip.sound


def _truncated(clip: Clip, other: Clip, rng: np.random.Generator) -> Spoilt:
    """The last second of the sound is lost."""
    return clip, clip.frames, clip.sound[:-RATE]


Defect = Callable[[Clip, Clip, np.random.Generator], Spoilt]
DEFECTS: dict[str, Defect] = {
    "lips 3 frames late": lambda clip, other, rng: _late(clip, other, rng, 3),
    "lips 3 frames early": lambda clip, other, rng: _late(clip, other, rng, -3),
    "lips 6 frames late": lambda clip, other, rng: _late(clip, other, rng, 6),
    "lips of another recording": _wrong_audio,
    "another recording in the file": _swapped_audio,
    "10 frames frozen": _frozen,
    "3 frames black": _black,
    "3 frames dropped": _dropped,
    "jump at a seam": _seam,
    "another person's frames": _another,
    "last second of sound lost": _truncated,
}


def trial(clips: Iterator[Clip], defects: dict[str, Defect] = DEFECTS) -> dict[str, list[Values]]:
    """By defect, and under ``clean``, the metrics of each clip."""
    found: defaultdict[str, list[Values]] = defaultdict(list)
    before: Clip | None = None
    for clip in clips:
        found["clean"].append(measured(clip, clip.frames, clip.sound))
        if before is not None:
            for name, spoil in defects.items():
                asked, frames, sound = spoil(clip, before, np.random.default_rng(clip.identity))
                found[name].append(measured(asked, frames, sound))
        before = clip
    return found


def verdicts(found: dict[str, list[Values]]) -> dict[str, list[list[str]]]:
    """By defect, the metrics of each clip that are outside the default gates for trained weights."""
    gates = gates_of({}, "trained")
    return {
        name: [[flag.removeprefix(FLAG) for flag in judge(values, gates).flags] for values in all_values]
        for name, all_values in found.items()
    }


def table(verdicts: dict[str, list[list[str]]]) -> str:
    """As Markdown: how many were caught, and by which gates."""
    rows = ["| defect | clips | caught | by |", "|---|---|---|---|"]
    for name, all_flags in verdicts.items():
        caught = sum(bool(flags) for flags in all_flags)
        by = Counter(flag for flags in all_flags for flag in flags).most_common(4)
        named = ", ".join(f"`{flag}` {count}" for flag, count in by)
        rows.append(f"| {name} | {len(all_flags)} | {caught} ({100 * caught / len(all_flags):.0f} %) | {named} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--size", type=int, default=128, help="of drawn pictures")
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--model", type=Path, metavar="FOLDER", help="clips made by imtalker-demo, and kept here")
    parser.add_argument("--values", type=Path, metavar="FILE", help="where to write all metrics, as JSON")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    if chosen.model is None:
        clips = (draw_clip(number, spoken(number, chosen.seed), chosen.size) for number in range(chosen.clips))
    else:
        clips = model_clips(chosen.clips, chosen.seed, chosen.model)
    found = trial(clips)
    if chosen.values is not None:
        chosen.values.write_text(json.dumps(found, indent=1))
    print(table(verdicts(found)))  # noqa: T201  (a script's output)


if __name__ == "__main__":
    main()
