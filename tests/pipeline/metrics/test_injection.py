"""Defects that need no luck to be caught, put into two drawn clips of recorded lines."""

from __future__ import annotations

import pytest

from imtalker.avatars.speech.performance import enact
from tests.imtalker.avatars.recorded_speech import utterance
from tests.pipeline.metrics.clip import draw_clip
from tests.pipeline.metrics.injection import DEFECTS, table, trial, verdicts

SURE = {
    "another recording in the file": "audio_correlation",
    "10 frames frozen": "longest_freeze_s",
    "3 frames black": "black_frames",
    "3 frames dropped": "frames_missing",
    "jump at a seam": "seam_step_pixels",
    "last second of sound lost": "audio_correlation",
}


@pytest.fixture(scope="module")
def found() -> dict[str, list[list[str]]]:
    said = [enact(utterance(name), seed=3) for name in ("papa", "pfanne")]
    clips = (draw_clip(number, performance, 64) for number, performance in enumerate(said))
    return verdicts(trial(clips, {name: DEFECTS[name] for name in SURE}))


@pytest.mark.parametrize(("defect", "gate"), SURE.items(), ids=SURE)
def test_the_gate_of_a_defect_catches_it_and_lets_clean_clips_pass(
    found: dict[str, list[list[str]]], defect: str, gate: str
) -> None:
    assert all(gate in flags for flags in found[defect]), table(found)
    assert not any(gate in flags for flags in found["clean"]), table(found)
