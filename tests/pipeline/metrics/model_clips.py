"""Clips for `tests.pipeline.metrics.injection` that the model which comes with the program has made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from imtalker.avatars import NEUTRAL, draw_identity, render
from pipeline.avatars.portraits import as_bytes
from pipeline.metrics.regions import Box
from pipeline.talker import MotionRequest, Talker, load
from tests.pipeline.metrics.clip import FPS, RATE, Clip, face_of, spoken


def model_clips(count: int, seed: int, folder: Path) -> Iterator[Clip]:
    """Avatars that the model has not learnt from say held-out lines. Needs espeak-ng; made once, in ``folder``."""
    talker = load("imtalker-demo")
    for stage in ("features", "motion", "render"):
        talker.warm(stage)
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        path = folder / f"{seed}-{number}.npz"
        if not path.exists():
            made = asdict(_make(number, seed, talker))
            np.savez(path, **{name: value for name, value in made.items() if isinstance(value, np.ndarray | int)},
                     box=list(made["face"].values()))  # fmt: skip
        with np.load(path) as kept:
            arrays = {name: kept[name] for name in kept.files if name not in ("box", "identity")}
            clip = Clip(identity=number, face=Box(*kept["box"].tolist()), **arrays)
        yield replace(clip, inspect=talker.inspect)


def _make(number: int, seed: int, talker: Talker) -> Clip:
    said, size = spoken(number, seed), talker.info.resolution
    neutral = render(draw_identity(number, "narrow"), torch.tensor([NEUTRAL]), size, device="cpu")
    image, sound = as_bytes(neutral.image)[0], said.waveform.numpy()
    portrait, (audio,) = talker.encode_portrait(image), talker.encode_audio([sound])
    (motion,) = talker.generate([MotionRequest(portrait, audio, seed=number, cfg_scale=3.0, nfe=10)])
    motion = {name: array[: -(-len(sound) * FPS // RATE)] for name, array in motion.items()}
    return Clip(
        number,
        image,
        face_of(neutral.landmarks[0].numpy(), size),
        np.concatenate(list(talker.render(talker.prepare(image, portrait), motion))),
        sound,
        next(iter(motion.values())).reshape(len(next(iter(motion.values()))), -1),
        talker.inspect(image[None])["identity"][0],
    )
