"""Where a recording has speech, by Silero VAD, where the extra ``vad`` is installed (MIT, weights in its wheel)."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from threading import Lock
from typing import Any

import numpy as np
import torch

from pipeline.metrics.speech import SAMPLE_RATE

Detect = Callable[[np.ndarray], np.ndarray]

# The network remembers what it has just heard.
_LISTENING = Lock()


def speech_pieces(waveform: np.ndarray) -> np.ndarray | None:
    """First and end sample of every piece with speech in float [N] at 16 kHz: int [n, 2]; None without the extra."""
    detect = _detector()
    return None if detect is None else detect(waveform)


@cache
def _detector() -> Detect | None:
    if find_spec("silero_vad") is None:
        return None
    # Importing it gives the whole process one thread.
    threads = torch.get_num_threads()
    try:
        with warnings.catch_warnings():
            # Its ways to find and load its network are old ones.
            warnings.simplefilter("ignore", DeprecationWarning)
            silero: Any = importlib.import_module("silero_vad")
            network = silero.load_silero_vad()
    finally:
        torch.set_num_threads(threads)

    def detect(waveform: np.ndarray) -> np.ndarray:
        with _LISTENING, torch.inference_mode():
            found = silero.get_speech_timestamps(
                torch.tensor(waveform, dtype=torch.float32), network, sampling_rate=SAMPLE_RATE
            )
        return np.array([(piece["start"], piece["end"]) for piece in found], dtype=np.int64).reshape(-1, 2)

    return detect
