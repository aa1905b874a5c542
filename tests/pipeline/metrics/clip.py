"""A talking clip about which everything is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from imtalker.avatars import NEUTRAL, draw_identity, render
from imtalker.avatars.speech.performance import Performance, perform
from imtalker.avatars.speech.texts import Split, lines
from pipeline.avatars.portraits import as_bytes
from pipeline.metrics.item import Inspect
from pipeline.metrics.regions import Box

RATE, FPS, WINDOW = 16_000, 25, 50


@dataclass(frozen=True)
class Clip:
    """``frames`` uint8 [T, R, R, 3], ``sound`` float32 [N]; ``codes`` [T, D] are the avatar's states, or the model's
    codes. ``identity_vector`` and ``inspect`` are the model's eyes."""

    identity: int
    portrait: np.ndarray
    face: Box
    frames: np.ndarray
    sound: np.ndarray
    codes: np.ndarray
    identity_vector: np.ndarray | None = None
    inspect: Inspect | None = None


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
