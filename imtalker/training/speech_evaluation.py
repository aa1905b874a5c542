"""What a renderer and a generator make of speech that neither was trained on: lips, silence, heads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from imtalker.audio.waveform import normalise
from imtalker.avatars import NEUTRAL, STATE_FIELDS, draw_identity, render
from imtalker.avatars.identity import World
from imtalker.avatars.speech.performance import PERFORMANCE_COLUMNS, Performance
from imtalker.avatars.speech.utterance import PAUSE, frame_times
from imtalker.generator.generator import MotionGenerator
from imtalker.renderer.renderer import Renderer
from imtalker.training.similarity import correlation
from imtalker.training.state_reader import StateReader

MAX_LAG = 5
"""Frames that lips are looked for before and after the sound."""

_SEEDS = 2
"""Of each line; no two lines have one in common, or all would blink at once."""
_HEAD = ("yaw", "pitch", "roll")
# Rest is what lies so far from any sound that the mouth may have closed.
_SETTLED_S = 0.3


@dataclass(frozen=True)
class SpeechScores:
    """Means over lines. Mouths and heads are read off the rendered frames."""

    lip_correlation: float
    """Of the mouth's opening, read and true, at the best lag within one frame."""
    lip_lag: float
    """Frames by which the lips follow the truth, at the best lag within `MAX_LAG`."""
    wrong_correlation: float
    """The same as ``lip_correlation``, with the truth of another line."""
    silent_motion: float
    """How much the mouth moves in silence, as a part of how much it moves in speech."""
    seeds_lips: float
    """Correlation of the mouth's opening under two seeds."""
    seeds_heads: float
    """The same of yaw, pitch and roll."""
    head_motion: float
    """Standard deviation of yaw over a line, as a part of that of the true heads."""
    lid_motion: float
    """The same of blinks."""


@torch.inference_mode()
def evaluate_speech(
    renderer: Renderer,
    generator: MotionGenerator,
    reader: StateReader,
    performances: Sequence[Performance],
    *,
    cfg_scale: float = 3.0,
    nfe: int = 10,
    world: World = "full",
    report: Callable[[int, int], None] = lambda done, total: None,
) -> SpeechScores:
    """Let held-out identity k, in the neutral state, say performance k, under two seeds of its own.

    Performances should begin and end with a second of silence. Networks are on the CPU, in evaluation mode. Raises
    ValueError for fewer than two performances.
    """
    if len(performances) < 2:
        raise ValueError(f"expected two performances or more, found {len(performances)}")
    shown = []
    for number, performance in enumerate(performances):
        portrait = render(
            draw_identity(number, world), torch.tensor([NEUTRAL]), renderer.config.resolution, device="cpu"
        )
        prepared = renderer.prepare(portrait.image)
        waveform = normalise(performance.waveform[None])
        features = generator.encode_audio(waveform)
        motions = (
            generator.sample_from_features(features, prepared.motion, seed=seed, cfg_scale=cfg_scale, nfe=nfe)[0]
            for seed in range(_SEEDS * number, _SEEDS * (number + 1))
        )
        shown.append([reader(renderer.render(prepared, motion)) for motion in motions])
        report(number + 1, len(performances))
    return scores(shown, performances)


def scores(shown: Sequence[Sequence[Tensor]], performances: Sequence[Performance]) -> SpeechScores:
    """The scores of what was read: for each performance the states [T, 14] under each of two seeds."""
    opening = STATE_FIELDS.index("mouth_open")
    heads = [STATE_FIELDS.index(name) for name in _HEAD]
    true = [performance.state[:, PERFORMANCE_COLUMNS.index("mouth_open")] for performance in performances]
    read = [states[0][:, opening] for states in shown]
    pairs = list(zip(read, true, strict=True))
    return SpeechScores(
        lip_correlation=_mean(max(lagged(one, other, lag) for lag in (-1, 0, 1)) for one, other in pairs),
        lip_lag=_mean(best_lag(one, other) for one, other in pairs),
        wrong_correlation=_mean(
            max(lagged(*_cut(one, other), lag) for lag in (-1, 0, 1))
            for one, other in zip(read, true[1:] + true[:1], strict=True)
        ),
        silent_motion=_mean(silent_share(one, who) for one, who in zip(read, performances, strict=True)),
        seeds_lips=_mean(correlation(a[:, opening], b[:, opening]) for a, b in shown),
        seeds_heads=_mean(correlation(a[:, column], b[:, column]) for a, b in shown for column in heads),
        head_motion=_motion("yaw", shown, performances),
        lid_motion=_motion("blink", shown, performances),
    )


def _motion(name: str, shown: Sequence[Sequence[Tensor]], performances: Sequence[Performance]) -> float:
    read = _mean(states[:, STATE_FIELDS.index(name)].std().item() for seeds in shown for states in seeds)
    return read / _mean(who.state[:, PERFORMANCE_COLUMNS.index(name)].std().item() for who in performances)


def lagged(read: Tensor, true: Tensor, lag: int) -> float:
    """Correlation of two curves [T] when the first is ``lag`` frames late."""
    late, early = (read[lag:], true[: len(true) - lag]) if lag >= 0 else (read[:lag], true[-lag:])
    return correlation(late, early)


def best_lag(read: Tensor, true: Tensor) -> int:
    """The lag within `MAX_LAG` at which two curves are most alike."""
    return max(range(-MAX_LAG, MAX_LAG + 1), key=lambda lag: lagged(read, true, lag))


def silent_share(opening: Tensor, performance: Performance) -> float:
    """Mean change of the mouth's opening from frame to frame in silence, as a part of that in speech."""
    speaking, silent = speaking_frames(performance)
    change = opening.diff().abs()
    both = [marked[1:] & marked[:-1] for marked in (silent, speaking)]
    return (change[both[0]].mean() / change[both[1]].mean()).item()


def speaking_frames(performance: Performance) -> tuple[Tensor, Tensor]:
    """Bool [T] each: frames in which a sound is made, and frames that are away from any."""
    times = torch.from_numpy(frame_times(len(performance.waveform)))
    speaking, near = torch.zeros(len(times), dtype=torch.bool), torch.zeros(len(times), dtype=torch.bool)
    for phone in performance.utterance.phones:
        if phone.symbol != PAUSE:
            speaking |= (times >= phone.start_s) & (times < phone.end_s)
            near |= (times >= phone.start_s - _SETTLED_S) & (times < phone.end_s + _SETTLED_S)
    return speaking, ~near


def _cut(one: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    length = min(len(one), len(other))
    return one[:length], other[:length]


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)
