"""Where a recording has speech, by Silero VAD, where the extra ``vad`` is installed (MIT, weights in its wheel)."""

from __future__ import annotations

import importlib
import warnings
from importlib.util import find_spec
from threading import Lock
from typing import Any

import numpy as np
import torch

from pipeline.metrics.speech import SAMPLE_RATE

_WINDOW = 512
"""Samples that the network hears at once."""

_IDLE: list[Any] = []
"""Networks that nobody listens with. Each remembers what it has just heard, so a recording needs one of its own."""
_LOADING = Lock()


class VoiceDetector:
    """Hears a recording in pieces. To be made where the extra is installed (`installed`)."""

    def __init__(self) -> None:
        self._network: Any = None
        self._held = np.zeros(0, np.float32)
        self._samples = 0
        self._chances: list[float] = []

    def add(self, samples: np.ndarray) -> None:
        """The next samples, float [n] at 16 kHz."""
        self._samples += len(samples)
        held = np.concatenate([self._held, samples.astype(np.float32)])
        whole = len(held) - len(held) % _WINDOW
        self._hear(held[:whole])
        self._held = held[whole:].copy()

    def pieces(self) -> np.ndarray:
        """First and end sample of every piece with speech, int [n, 2]. Nothing can be added afterwards."""
        if len(self._held):
            self._hear(np.pad(self._held, (0, _WINDOW - len(self._held))))
        if self._network is not None:
            _IDLE.append(self._network)
        found = _silero().get_speech_timestamps_from_probs(
            self._chances, sampling_rate=SAMPLE_RATE, audio_length_samples=self._samples
        )
        return np.array([(piece["start"], piece["end"]) for piece in found], dtype=np.int64).reshape(-1, 2)

    def _hear(self, samples: np.ndarray) -> None:
        """Whole windows, or none."""
        if self._network is None:
            self._network = _fresh_network()
        with torch.inference_mode():
            for window in torch.from_numpy(samples).view(-1, _WINDOW):
                self._chances.append(float(self._network(window, SAMPLE_RATE).item()))


def installed() -> bool:
    """Whether the extra is."""
    return find_spec("silero_vad") is not None


def _fresh_network() -> Any:
    with _LOADING, warnings.catch_warnings():
        # Its ways to find and load its network are old ones.
        warnings.simplefilter("ignore", DeprecationWarning)
        network = _IDLE.pop() if _IDLE else _silero().load_silero_vad()
    network.reset_states()
    return network


def _silero() -> Any:
    # Importing it gives the whole process one thread.
    threads = torch.get_num_threads()
    try:
        return importlib.import_module("silero_vad")
    finally:
        torch.set_num_threads(threads)
