"""Defects put into talking clips on purpose, and how many of them the default gates catch.

The clips are drawn: avatars that say sentences of espeak-ng, with exact mouths, so a clean clip is really clean.
``python -m tests.pipeline.metrics.injection --clips 100`` prints the table of ``docs/metrics.md``.
"""

from __future__ import annotations

import argparse
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch

from imtalker.avatars import NEUTRAL, draw_identity, render
from imtalker.avatars.speech.performance import Performance, perform
from imtalker.avatars.speech.texts import Split, lines
from pipeline.avatars.portraits import as_bytes
from pipeline.config import InputLimits, VideoSettings
from pipeline.media.audio import decode_mono_16k
from pipeline.media.encode import VideoWriter
from pipeline.media.wav import write_wav
from pipeline.metrics.catalogue import Values
from pipeline.metrics.gates import FLAG, gates_of, judge
from pipeline.metrics.item import Asked, ItemMeter, Source
from pipeline.metrics.pixels import SourceLook
from pipeline.metrics.regions import Box

RATE, FPS, WINDOW = 16_000, 25, 50


@dataclass(frozen=True)
class Clip:
    """``frames`` uint8 [T, R, R, 3], ``sound`` float32 [N]; ``codes`` [T, 14] are the avatar's states."""

    identity: int
    portrait: np.ndarray
    face: Box
    frames: np.ndarray
    sound: np.ndarray
    codes: np.ndarray


def spoken(number: int, seed: int) -> Performance:
    """A sentence of the held-out split in a held-out voice, the six languages in turn. Needs espeak-ng."""
    line = lines(number + 1, seed=seed, sentence_split=Split.HELD_OUT, voice_split=Split.HELD_OUT)[number]
    return perform(line.text, line.voice, seed=number, rate=line.rate, pitch=line.pitch, silence_s=(0.4, 0.4))


def draw_clip(number: int, said: Performance, size: int) -> Clip:
    """An avatar performs what is said."""
    neutral = render(draw_identity(number), torch.tensor([NEUTRAL]), size, device="cpu")
    first = render(draw_identity(number), said.state[:1], size, device="cpu")
    frames = render(draw_identity(number), said.state, size, device="cpu")
    return Clip(
        number,
        as_bytes(neutral.image)[0],
        face_of(first.landmarks[0].numpy(), size),
        as_bytes(frames.image),
        said.waveform.numpy(),
        said.state.numpy(),
    )


def face_of(landmarks: np.ndarray, size: int) -> Box:
    """From hairline to chin, as a detector frames it; the brows are a third of the way down."""
    chin, brows = float(landmarks[8, 1]), float(landmarks[17:27, 1].mean())
    left, right = float(landmarks[0, 0]), float(landmarks[16, 0])
    return Box(left / size, (brows - 0.45 * (chin - brows)) / size, right / size, chin / size)


def measured(clip: Clip, frames: np.ndarray, heard: np.ndarray) -> Values:
    """Metrics of a video with these frames and this sound, that was to be the clip's; written and read back."""
    due = -(-len(clip.sound) * FPS // RATE)
    asked = Asked(due, FPS, clip.codes, WINDOW)
    meter = ItemMeter(asked, Source(SourceLook.of(clip.portrait, clip.face)))
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
        return meter.finish(video, clip.sound, decode_mono_16k(video, InputLimits()))


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


def verdict(values: Values) -> list[str]:
    """Metrics outside the default gates for trained weights."""
    return [flag.removeprefix(FLAG) for flag in judge(values, gates_of({}, "trained")).flags]


def trial(clips: Iterator[Clip], defects: dict[str, Defect] = DEFECTS) -> dict[str, list[list[str]]]:
    """By defect, and under ``clean``, the gates that each clip is outside of."""
    found: defaultdict[str, list[list[str]]] = defaultdict(list)
    before: Clip | None = None
    for clip in clips:
        found["clean"].append(verdict(measured(clip, clip.frames, clip.sound)))
        if before is not None:
            for name, spoil in defects.items():
                asked, frames, sound = spoil(clip, before, np.random.default_rng(clip.identity))
                found[name].append(verdict(measured(asked, frames, sound)))
        before = clip
    return found


def table(found: dict[str, list[list[str]]]) -> str:
    """As Markdown: how many were caught, and by which gates."""
    rows = ["| defect | clips | caught | by |", "|---|---|---|---|"]
    for name, all_flags in found.items():
        caught = sum(bool(flags) for flags in all_flags)
        by = Counter(flag for flags in all_flags for flag in flags).most_common(4)
        named = ", ".join(f"`{flag}` {count}" for flag, count in by)
        rows.append(f"| {name} | {len(all_flags)} | {caught} ({100 * caught / len(all_flags):.0f} %) | {named} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--clips", type=int, default=24)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--seed", type=int, default=5)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    drawn = (draw_clip(number, spoken(number, chosen.seed), chosen.size) for number in range(chosen.clips))
    print(table(trial(drawn)))  # noqa: T201  (a script's output)


if __name__ == "__main__":
    main()
