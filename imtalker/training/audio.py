"""Training of a small audio encoder on speech whose sounds and mouths are known.

The published model takes facebook/wav2vec2-base-960h as it is. A model that ships with this project needs a small one,
which learns to tell what is said and how the mouth moves; then it is frozen, and the motion generator learns from its
features.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imtalker.audio.encoder import FRAME_SAMPLES, AudioEncoder
from imtalker.avatars.speech.articulation import MOUTH_COLUMNS
from imtalker.avatars.speech.visemes import LETTERS
from imtalker.training.speech_clips import SpeechBatch

_AROUND = 2
"""The mouth is asked for this many frames before and after, too."""
MAX_GRADIENT_NORM = 1.0


class AudioTrainer:
    """The encoder, two linear read-outs of its features, and their optimiser."""

    def __init__(self, encoder: AudioEncoder, *, learning_rate: float = 5e-4, sounds: float = 0.2) -> None:
        """``sounds`` weighs the cross-entropy of the sounds against the mouth's mean absolute error."""
        hidden = encoder.wav2vec2.config.hidden_size
        self.encoder = encoder.requires_grad_(True)
        self.steps = 0
        self._weight = sounds
        device = next(encoder.parameters()).device
        self.mouth = nn.Linear(hidden, (2 * _AROUND + 1) * len(MOUTH_COLUMNS), device=device)
        self.sound = nn.Linear(hidden, len(LETTERS) + 1, device=device)
        parameters = [*encoder.parameters(), *self.mouth.parameters(), *self.sound.parameters()]
        self._optimiser = torch.optim.AdamW(parameters, learning_rate, weight_decay=0.01)

    def set_learning_rate(self, rate: float) -> None:
        """From the next step on."""
        for group in self._optimiser.param_groups:
            group["lr"] = rate

    def step(self, batches: Sequence[SpeechBatch]) -> dict[str, float]:
        """One update from one batch, or from several whose gradients are averaged. Returns the means of the terms."""
        self._optimiser.zero_grad(set_to_none=True)
        terms = {"mouth": 0.0, "sound": 0.0, "total": 0.0}
        for batch in batches:
            losses = self.losses(batch)
            (losses["total"] / len(batches)).backward()
            for name, value in losses.items():
                terms[name] += value.item() / len(batches)
        for group in self._optimiser.param_groups:
            nn.utils.clip_grad_norm_(group["params"], MAX_GRADIENT_NORM)
        self._optimiser.step()
        self.steps += 1
        return terms

    def losses(self, batch: SpeechBatch) -> dict[str, Tensor]:
        features = self.encoder(batch.waveform, batch.mouth.shape[1])
        around = F.pad(batch.mouth.transpose(1, 2), (_AROUND, _AROUND), mode="replicate").unfold(2, 2 * _AROUND + 1, 1)
        wanted = around.transpose(1, 2).flatten(2)
        mouth = (self.mouth(features) - wanted).abs().mean()
        sound = F.cross_entropy(self.sound(features).flatten(0, 1), batch.sound.flatten())
        return {"mouth": mouth, "sound": sound, "total": mouth + self._weight * sound}

    @torch.no_grad()
    def read_mouth(self, waveform: Tensor) -> Tensor:
        """Normalised speech [B, 640 T] -> the mouth as the features tell it, [B, T, 4]."""
        features = self.encoder(waveform, waveform.shape[1] // FRAME_SAMPLES)
        return self.mouth(features).unflatten(2, (len(MOUTH_COLUMNS), -1))[..., _AROUND]

    def state_dict(self) -> dict[str, Any]:
        """Everything that `step` depends on, for an exact continuation."""
        return {
            "encoder": self.encoder.state_dict(),
            "mouth": self.mouth.state_dict(),
            "sound": self.sound.state_dict(),
            "optimiser": self._optimiser.state_dict(),
            "steps": self.steps,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.encoder.load_state_dict(state["encoder"])
        self.mouth.load_state_dict(state["mouth"])
        self.sound.load_state_dict(state["sound"])
        self._optimiser.load_state_dict(state["optimiser"])
        self.steps = state["steps"]
