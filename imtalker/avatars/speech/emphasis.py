"""Which words of an utterance stand out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from imtalker.avatars.speech.utterance import PAUSE, Utterance

_APART_S = 0.5
_STRONG = 0.35
_PEAK_S = 0.05


@dataclass(frozen=True)
class Emphasis:
    """A word that stands out: the loudest moment in it, and how much it stands out, 0..1."""

    time_s: float
    strength: float


def emphases(utterance: Utterance) -> tuple[Emphasis, ...]:
    """The words that are louder and longer than the utterance's others, at least 0.5 s apart, in order of time.

    A word scores by its peak level (over 50 ms) times the square root of its duration; the strength is its place
    between the least and the greatest score.
    """
    if not utterance.words:
        return ()
    window = max(1, round(_PEAK_S * utterance.rate))
    energy = np.convolve(utterance.samples.astype(np.float64) ** 2, np.full(window, 1.0 / window), mode="same")
    starts = [word.start_s for word in utterance.words]
    pauses = [phone.start_s for phone in utterance.phones if phone.symbol == PAUSE]
    found = []
    for start, following in zip(starts, [*starts[1:], utterance.seconds], strict=True):
        end = min([following, *(pause for pause in pauses if start < pause < following)])
        first, last = round(start * utterance.rate), round(end * utterance.rate)
        if last > first:
            peak = first + int(np.argmax(energy[first:last]))
            found.append((float(np.sqrt(energy[peak] * (end - start))), peak / utterance.rate))
    least, most = min(found, default=(0.0, 0.0))[0], max(found, default=(0.0, 0.0))[0]
    chosen: list[Emphasis] = []
    for score, time in sorted(found, reverse=True):
        strength = (score - least) / (most - least) if most > least else 1.0
        if strength >= _STRONG and all(abs(time - other.time_s) >= _APART_S for other in chosen):
            chosen.append(Emphasis(time, strength))
    return tuple(sorted(chosen, key=lambda emphasis: emphasis.time_s))
