"""Utterances of espeak-ng 1.51 as they were, for tests that don't need it: phonemes, words and the level of the sound.

``python -m tests.imtalker.avatars.recorded_speech`` makes the file anew, where espeak-ng is installed.
"""

from __future__ import annotations

import json
from dataclasses import astuple
from pathlib import Path

import numpy as np

from imtalker.avatars.speech.espeak import speak
from imtalker.avatars.speech.utterance import Phone, Utterance, Word

PATH = Path(__file__).parents[2] / "data" / "avatars" / "speech.json"
NAMES = ("papa", "fast", "pfanne", "bon")
_RATE = 22_050
_WINDOW = 220
LEVEL_S = _WINDOW / _RATE
_SPOKEN = {
    "papa": ("Papa, mama. Who moved the five blue sheep away?", "en-us", 170),
    "fast": ("Maybe Bob's mummy may obey a happy member of the band.", "en+m3", 320),
    "pfanne": ("Übrigens: der Bäcker schob früh zwölf Pfannkuchen über den Tisch.", "de+f5", 150),
    "bon": ("Un bon vin blanc, et huit pommes rouges pour mon ami.", "fr+m1", 190),
}


def utterance(name: str) -> Utterance:
    """The recorded utterance, its sound replaced by noise of the recorded level."""
    entry = json.loads(PATH.read_text())[name]
    level = np.repeat(np.array(entry["levels"], dtype=np.float64), _WINDOW)[: entry["samples"]]
    noise = np.random.default_rng(0).uniform(-1.7, 1.7, len(level))
    return Utterance(
        entry["text"],
        entry["voice"],
        _RATE,
        np.clip(level * noise, -32768, 32767).astype(np.int16),
        tuple(Phone(*phone) for phone in entry["phones"]),
        tuple(Word(*word) for word in entry["words"]),
        tuple(entry["sentences"]),
    )


def levels(samples: np.ndarray) -> np.ndarray:
    """float64: root mean squares of windows of ``LEVEL_S`` seconds, about 10 ms."""
    padded = np.pad(samples.astype(np.float64), (0, -len(samples) % _WINDOW)).reshape(-1, _WINDOW)
    return np.sqrt((padded**2).mean(axis=1))


def _record() -> None:
    entries = {}
    for name, (text, voice, rate) in _SPOKEN.items():
        spoken = speak(text, voice, rate)
        entries[name] = {
            "text": text,
            "voice": voice,
            "samples": len(spoken.samples),
            "levels": [round(level) for level in levels(spoken.samples)],
            "phones": [[phone.symbol, *(round(x, 5) for x in astuple(phone)[1:])] for phone in spoken.phones],
            "words": [[word.position, word.length, round(word.start_s, 5)] for word in spoken.words],
            "sentences": [round(start, 5) for start in spoken.sentences],
        }
    PATH.parent.mkdir(parents=True, exist_ok=True)
    PATH.write_text(json.dumps(entries, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    _record()
