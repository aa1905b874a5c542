"""From phonemes to mouth movement: dominance functions, with closures that are really reached.

Cohen and Massaro, "Modeling coarticulation in synthetic visual speech" (1993): each sound pulls each parameter of the
mouth towards its target with a dominance that falls off exponentially before and after it; the mouth is where the pulls
balance. Lip contact is not left to a balance: it is imposed, as is rest in pauses.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from imtalker.avatars.speech.utterance import FPS, PAUSE, Phone
from imtalker.avatars.speech.visemes import Closure, Viseme, visemes

MOUTH_COLUMNS = ("mouth_open", "mouth_width", "mouth_round", "jaw")

PAUSE_AT_REST_S = 0.2
"""The mouth comes to rest in every pause longer than this, and at the end."""

# Fall-off times in seconds, before and after the sound. Rounding starts early (anticipation) and ends soon.
_BEFORE = np.array([0.035, 0.060, 0.080, 0.045])
_AFTER = np.array([0.035, 0.045, 0.045, 0.045])
_REACH_S = 1.0
# The middle part of a sound, where its dominance is whole.
_CORE = 0.4
# espeak-ng begins a vowel's transition before its event, so a voiced closure is released at this part of its time
# (measured on the energy: 0.6 to 0.7 for b and m; b in French 0.95).
_RELEASE = 0.7
# A closure before a burst lasts as long as the silence there, within these bounds in seconds.
_BURST_CLOSURE = (0.04, 0.1)
# A frame's middle falls into every half-open interval of a frame's length.
_LEAST_HOLD_S = 1.0 / FPS
_CLOSING_S, _OPENING_S = 0.08, 0.06
_GAP_SHARE, _FASTEST_S = 0.6, 0.03
# The most that the lips and the jaw may be open in contact; lips after teeth, which they may follow at once.
_CONTACT = {Closure.TEETH: (0.1, 0.2), Closure.LIPS: (0.0, 0.2)}
_REST_AFTER_S, _REST_BEFORE_S, _REST_RAMP_S = 0.1, 0.08, 0.14


@dataclass(frozen=True)
class _Sound:
    viseme: Viseme
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Articulation:
    """``mouth`` float32 [T, 4], columns :data:`MOUTH_COLUMNS`; ``unknown`` counts the letters that no table holds."""

    mouth: np.ndarray
    unknown: Counter[str]


def articulate(phones: Sequence[Phone], times: np.ndarray) -> Articulation:
    """The mouth at ``times`` (seconds, ascending) while ``phones`` (in order, without gaps) are spoken.

    The result at one time does not depend on which other times are asked for.
    """
    unknown: Counter[str] = Counter()
    sounds = _sounds(phones, unknown)
    mouth = _blend(sounds, times)
    _close(mouth, [sound for sound in sounds if sound.viseme.closure is not Closure.NONE], times)
    for phone in _merged_pauses(phones):
        ends_speech = phone.end_s == phones[-1].end_s
        if phone.end_s - phone.start_s > (_REST_AFTER_S if ends_speech else PAUSE_AT_REST_S):
            # Before the first sound and after the last there is nothing to come from or go to.
            first = phone.start_s + _REST_AFTER_S if phone.start_s > 0 else -np.inf
            last = phone.end_s - _REST_BEFORE_S if not ends_speech else np.inf
            mouth *= 1.0 - _plateau(times, first, last, _REST_RAMP_S, _REST_RAMP_S)[:, None]
    return Articulation(np.clip(mouth, (0, -1, 0, 0), 1).astype(np.float32), unknown)


def closures(phones: Sequence[Phone]) -> list[tuple[float, float]]:
    """Seconds from..to in which the lips touch, for each p, b and m in turn; at least a frame long."""
    sounds = _sounds(phones, Counter())
    return [_hold(sound) for sound in sounds if sound.viseme.closure is Closure.LIPS]


def _sounds(phones: Sequence[Phone], unknown: Counter[str]) -> list[_Sound]:
    """The sounds with the times of their movements: bursts get back the closure that precedes them."""
    sounds: list[_Sound] = []
    for phone in phones:
        parts = visemes(phone.symbol, unknown)
        start = phone.start_s
        second = (phone.end_s - start) / sum(part.share for part in parts)
        for index, part in enumerate(parts):
            end = start + second * part.share
            if part.bursts and index == 0:
                closure = float(np.clip(phone.silence_s, *_BURST_CLOSURE))
                sounds.append(_Sound(part, start - closure, start))
            else:
                sounds.append(_Sound(part, start, end))
            start = end
    return sounds


def _merged_pauses(phones: Sequence[Phone]) -> list[Phone]:
    pauses: list[Phone] = []
    for phone in phones:
        if phone.symbol != PAUSE:
            continue
        if pauses and pauses[-1].end_s == phone.start_s:
            pauses[-1] = Phone(PAUSE, pauses[-1].start_s, phone.end_s)
        else:
            pauses.append(phone)
    return pauses


def _blend(sounds: Sequence[_Sound], times: np.ndarray) -> np.ndarray:
    """float64 [T, 4]: the mean of the targets, weighted by dominance. Linear in the duration."""
    pulled = np.zeros((len(times), 4))
    total = np.full((len(times), 4), 1e-9)
    for sound in sounds:
        viseme = sound.viseme
        middle, reach = (sound.start_s + sound.end_s) / 2, (sound.end_s - sound.start_s) * _CORE / 2
        near = slice(*np.searchsorted(times, (middle - reach - _REACH_S, middle + reach + _REACH_S)))
        offset = times[near, None] - middle
        distance = np.maximum(np.abs(offset) - reach, 0.0)
        dominance = np.exp(-distance / np.where(offset < 0, _BEFORE, _AFTER))
        dominance *= (viseme.lips, viseme.shape, viseme.shape, viseme.lips)
        pulled[near] += dominance * (viseme.opening, viseme.width, viseme.rounding, viseme.jaw)
        total[near] += dominance
    return pulled / total


def _hold(sound: _Sound) -> tuple[float, float]:
    """From..to seconds of contact. What is too short for a frame is entered earlier: the release is what is heard."""
    length = sound.end_s - sound.start_s
    end = sound.end_s if sound.viseme.bursts else sound.start_s + _RELEASE * length
    return min(sound.start_s, end - _LEAST_HOLD_S), end


def _close(mouth: np.ndarray, sounds: Sequence[_Sound], times: np.ndarray) -> None:
    """Bring the lips together, or the lower lip to the teeth, in place.

    Between closures that are close to each other the lips move faster, so that what lies between opens the mouth.
    """
    holds = [_hold(sound) for sound in sounds]
    closed = {closure: np.zeros(len(times)) for closure in (Closure.TEETH, Closure.LIPS)}
    for index, (sound, (first, last)) in enumerate(zip(sounds, holds, strict=True)):
        since = first - holds[index - 1][1] if index > 0 else np.inf
        until = holds[index + 1][0] - last if index + 1 < len(holds) else np.inf
        closing = min(_CLOSING_S, max(_GAP_SHARE * since, _FASTEST_S))
        opening = min(_OPENING_S, max(_GAP_SHARE * until, _FASTEST_S))
        near = slice(*np.searchsorted(times, (first - closing, last + opening)))
        track = closed[sound.viseme.closure]
        track[near] = np.maximum(track[near], _plateau(times[near], first, last, closing, opening))
    for closure, (lips, jaw) in _CONTACT.items():
        for column, most in ((0, lips), (3, jaw)):
            track = mouth[:, column]
            track += closed[closure] * (np.minimum(track, most) - track)


def _plateau(times: np.ndarray, first: float, last: float, before: float, after: float) -> np.ndarray:
    """1 from ``first`` to ``last``, falling to 0 over ``before`` and ``after`` seconds as half cosines."""
    away = np.maximum(np.maximum((first - times) / before, (times - last) / after), 0.0)
    return 0.5 + 0.5 * np.cos(np.pi * np.minimum(away, 1.0))
