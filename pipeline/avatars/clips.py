"""A talking clip as files: video with sound, the sound alone, and the state of every frame."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pyarrow.parquet as pq
import torch
from PIL import Image

from imtalker.avatars import Rendering, draw_identity, render
from imtalker.avatars.speech.performance import Performance, perform
from imtalker.avatars.speech.utterance import SAMPLE_RATE
from imtalker.engine.bench.measure import threads
from imtalker.seeded import drawn_between
from imtalker.training.picture_clips import write_landmarks
from pipeline.avatars.folder import AvatarFolder, appearing
from pipeline.avatars.portraits import as_bytes
from pipeline.avatars.recipes import ClipRecipe
from pipeline.avatars.states import states_table
from pipeline.config import InputLimits, VideoSettings
from pipeline.media.encode import VideoWriter
from pipeline.media.wav import write_wav

_BATCH_PIXELS = 1 << 20
"""Pixels drawn before they go to the encoder, of all frames together; some 40 MB. Part of the result, like the size:
frames drawn together may round otherwise."""

_SILENCE_S = (0.2, 1.2), (0.0, 0.8)
"""Shortest and longest silence before and after the speech."""


def spoken(recipe: ClipRecipe) -> Performance:
    """The clip's line, spoken by espeak-ng and performed, between silences of which some last a second.

    Raises what `imtalker.avatars.speech.espeak.speak` raises.
    """
    line, seed = recipe.line, recipe.performance_seed
    before, after = drawn_between("avatars/silence", _SILENCE_S, seed)
    return perform(line.text, line.voice, seed=seed, rate=line.rate, pitch=line.pitch, silence_s=(before, after))


def write_clip(folder: AvatarFolder, recipe: ClipRecipe, performance: Performance, *, frames: bool = False) -> int:
    """Write a clip into folders that exist, states last; with ``frames`` in the renderer's layout too.

    Pictures pass through to the encoder and are not held; sound, states and landmarks are, under half a megabyte for
    each second. Returns the number of frames. Raises `ItemError` or OSError where the disk fails.
    """
    name, size = recipe.name, recipe.portrait.size
    folder.clear(name)
    with appearing(folder.audio(name)) as path:
        write_wav(path, performance.waveform.numpy(), SAMPLE_RATE)
    landmarks = []
    with ExitStack() as stack:
        stack.enter_context(threads(1))  # another number may round otherwise
        pictures = stack.enter_context(appearing(folder.frames(name))) if frames else None
        writer = stack.enter_context(_writer(folder, recipe))
        for first, drawn in _drawn(recipe, performance.state):
            images = as_bytes(drawn.image)
            writer.write(images)
            landmarks.append(drawn.landmarks)
            if pictures is not None:
                pictures.mkdir(exist_ok=True)
                for index, image in enumerate(images, first):
                    Image.fromarray(image).save(pictures / folder.frame(name, index))
    points = torch.cat(landmarks)
    if frames:
        named = {folder.frame(name, index): place for index, place in enumerate((points + 0.5) / size)}
        with appearing(folder.landmarks(name)) as path:
            write_landmarks(path, named)
    with appearing(folder.states(name)) as path:
        pq.write_table(states_table(performance.state, points, recipe), path)
    return len(points)


def _writer(folder: AvatarFolder, recipe: ClipRecipe) -> VideoWriter:
    return VideoWriter(
        folder.video(recipe.name),
        width=recipe.portrait.size,
        height=recipe.portrait.size,
        settings=VideoSettings(),
        limits=InputLimits(),
        audio=folder.audio(recipe.name),
        tags={"title": recipe.line.text, "comment": "procedural avatar, synthetic speech"},
    )


def _drawn(recipe: ClipRecipe, state: torch.Tensor) -> Iterator[tuple[int, Rendering]]:
    """The clip in batches, each with the index of its first frame."""
    portrait = recipe.portrait
    identity = draw_identity(portrait.identity_seed, portrait.world)
    step = max(1, _BATCH_PIXELS // portrait.size**2)
    for first in range(0, len(state), step):
        yield first, render(identity, state[first : first + step], portrait.size, device="cpu")
