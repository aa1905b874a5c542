"""The generator's data from performances of avatars: all that a clip would show is known, so nothing is rendered."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from imtalker.audio.waveform import normalise
from imtalker.avatars.speech.espeak import EspeakError
from imtalker.avatars.speech.performance import PERFORMANCE_COLUMNS, Performance, perform
from imtalker.avatars.speech.texts import LANGUAGES, lines
from imtalker.avatars.state import STATE_FIELDS
from imtalker.checkpoints import CheckpointError, load_audio_encoder, weights_sha256
from imtalker.config import GeneratorConfig
from imtalker.generator.generator import MotionGenerator
from imtalker.training.chance import chance
from imtalker.training.motion_clips import MotionClip, clip_paths, write_clip
from imtalker.training.state_codes import StateCodes
from pipeline.avatars.conditions import conditions_of
from pipeline.errors import CannotRun
from pipeline.progress import RunProgress
from pipeline.training.record import check_facts

RECORD = "performed.json"

# Up to so many seconds of silence come before and after a line: mouths have to learn to rest.
_SILENCE_S = 1.2


@dataclass(frozen=True)
class PerformedClips:
    """Lines of the training's sentences and voices, spoken and performed, as clips in the published layout.

    Motion codes are those that tell the performances' states (`StateCodes`), which the renderer's motion encoder has
    learnt; audio features are those of ``audio_encoder``, a hub folder.
    """

    folder: Path
    """A file in it says what the clips were made of."""
    audio_encoder: Path
    config: GeneratorConfig
    clips: int
    seed: int
    languages: tuple[str, ...] = LANGUAGES

    def make(self, progress: RunProgress) -> None:
        """Make the clips that are missing.

        Raises CannotRun where espeak-ng or the audio encoder can't be used, and when the folder's clips are others.
        """
        generator, codes = MotionGenerator(self.config), StateCodes(self.config.dim_motion)
        progress.begin("clips", self.clips)
        try:
            load_audio_encoder(generator, self.audio_encoder)
            check_facts(self.folder / RECORD, self._facts(), "clips")
            for number, line in enumerate(lines(self.clips, seed=self.seed, languages=self.languages)):
                stem = f"{line.language}-{number:05d}"
                if not clip_paths(self.folder, stem)["motion"].exists():
                    before, after = (_SILENCE_S * torch.rand(2, generator=chance(self.seed, number))).tolist()
                    performance = perform(
                        line.text,
                        line.voice,
                        seed=self.seed * self.clips + number,
                        rate=line.rate,
                        pitch=line.pitch,
                        silence_s=(before, after),
                    )
                    write_clip(self.folder, stem, performed_clip(performance, generator, codes))
                progress.advance()
        except (EspeakError, CheckpointError) as exc:
            raise CannotRun(str(exc)) from exc

    def _facts(self) -> dict[str, Any]:
        return {
            "lines": self.clips,
            "seed": self.seed,
            "languages": list(self.languages),
            "dim_motion": self.config.dim_motion,
            "audio_encoder": weights_sha256(self.audio_encoder),
        }


@torch.inference_mode()
def performed_clip(performance: Performance, generator: MotionGenerator, codes: StateCodes) -> MotionClip:
    """All sequences of a performance; ``generator`` encodes its sound."""
    audio = generator.encode_audio(normalise(performance.waveform[None]))[0]
    columns = dict(zip(PERFORMANCE_COLUMNS, performance.state.unbind(1), strict=True))
    motion = codes(torch.stack([columns[name] for name in STATE_FIELDS], 1))
    known = conditions_of({name: column.double().numpy() for name, column in columns.items()})
    pose, camera, gaze = (torch.from_numpy(rows) for rows in (known.pose, known.camera, known.gaze))
    length = min(len(audio), len(motion))
    return MotionClip(*(rows[:length] for rows in (motion, audio, pose, camera, gaze)))
