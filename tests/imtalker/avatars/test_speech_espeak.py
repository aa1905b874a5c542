"""What is refused, everywhere; and the library itself, in the long tests (``apt-get install espeak-ng``)."""

from __future__ import annotations

import _ctypes
import ctypes
import ctypes.util
import hashlib
from itertools import pairwise

import numpy as np
import pytest
import torch

from imtalker.avatars.speech.articulation import articulate, closures
from imtalker.avatars.speech.clips import demo_clips
from imtalker.avatars.speech.espeak import EspeakError, speak
from imtalker.avatars.speech.performance import perform
from imtalker.avatars.speech.texts import LANGUAGES, Split, lines, voices
from imtalker.avatars.speech.utterance import Utterance, frame_times
from tests.imtalker.avatars import recorded_speech

long = pytest.mark.long


def test_without_the_library_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)
    with pytest.raises(EspeakError, match=r"libespeak-ng\.so\.1, found none: .* `apt-get install espeak-ng`"):
        speak("hello", "en-us")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("", "en"), "expected text to speak"),
        ((" \n", "en"), "expected text to speak"),
        (("a\0b", "en"), "expected text to speak"),
        (("a", "en", 79), r"rate must lie in 80\.\.450, found 79"),
        (("a", "en", 451), r"rate must lie in 80\.\.450, found 451"),
        (("a", "en", 170, 100), r"pitch must lie in 0\.\.99, found 100"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: tuple[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        speak(*arguments)


@long
@pytest.mark.parametrize("voice", ["xx", "en+nobody", "en-us+../f2", "", "en-us+"])
def test_unknown_voices_are_refused(voice: str) -> None:
    with pytest.raises(ValueError, match="espeak-ng has no voice"):
        speak("hello", voice)


@long
def test_equal_arguments_give_equal_samples_whatever_came_before() -> None:
    def digest(spoken: Utterance) -> str:
        return hashlib.sha256(spoken.samples.tobytes() + repr((spoken.phones, spoken.words)).encode()).hexdigest()

    first = digest(speak("Papa, mama. How are you?", "en-us+f2", 150, 60))
    speak("Etwas ganz anderes!", "de+m3", 250, 20)
    assert digest(speak("Papa, mama. How are you?", "en-us+f2", 150, 60)) == first


@long
def test_a_library_that_others_hold_is_refused() -> None:
    held = ctypes.CDLL("libespeak-ng.so.1")
    try:
        with pytest.raises(EspeakError, match="in use elsewhere in this process"):
            speak("hello", "en-us")
    finally:
        _ctypes.dlclose(held._handle)


@long
@pytest.mark.parametrize("name", recorded_speech.NAMES)
def test_the_recorded_utterances_are_what_espeak_says(name: str) -> None:
    recorded = recorded_speech.utterance(name)
    rate = {"papa": 170, "fast": 320, "pfanne": 150, "bon": 190}[name]
    spoken = speak(recorded.text, recorded.voice, rate)
    assert [phone.symbol for phone in spoken.phones] == [phone.symbol for phone in recorded.phones]
    assert [phone.end_s for phone in spoken.phones] == pytest.approx(
        [phone.end_s for phone in recorded.phones], abs=1e-4
    )


@long
def test_words_and_sentences_are_found_in_the_text() -> None:
    text = "Die schöne Zwölf; Pfütze. Ich übe. Papa!"
    spoken = speak(text, "de")
    said = [text[word.position : word.position + word.length] for word in spoken.words]
    assert said == ["Die", "schöne", "Zwölf", "Pfütze", "Ich", "übe", "Papa"]
    assert len(spoken.sentences) == 3
    assert spoken.phones[0].start_s == 0
    assert spoken.phones[-1].end_s == spoken.seconds
    assert all(a.end_s == b.start_s for a, b in pairwise(spoken.phones))


@long
def test_a_word_read_in_another_language_leaves_no_mark() -> None:
    symbols = [phone.symbol for phone in speak("I will judge.", "de").phones]
    assert not any("(" in symbol for symbol in symbols)


@long
@pytest.mark.parametrize("language", LANGUAGES)
def test_every_voice_speaks(language: str) -> None:
    for split in Split:
        for voice in voices(language, split):
            assert speak("a", voice).samples.any(), voice


@long
def test_a_corpus_is_known_closed_resting_and_in_time() -> None:
    step = 0.01
    curves = []
    for line in lines(60, seed=9) + lines(30, seed=9, voice_split=Split.HELD_OUT, sentence_split=Split.HELD_OUT):
        performance = perform(line.text, line.voice, seed=1, rate=line.rate, pitch=line.pitch, silence_s=(0.3, 0.3))
        assert not performance.unknown
        spoken = performance.utterance
        opening = performance.state[:, 10].numpy()
        times = frame_times(len(performance.waveform))
        for first, last in closures(spoken.phones):
            assert opening[(times >= first) & (times < last)].max() < 1e-6
        assert performance.state[0, 10:].abs().max() == performance.state[-1, 10:].abs().max() == 0
        window = performance.waveform[: len(performance.waveform) // 160 * 160].reshape(-1, 160)
        level = np.convolve(window.square().mean(dim=1).sqrt().numpy(), np.full(4, 0.25), mode="same")
        onset = np.argmax(level > 0.02 * level.max()) * step
        assert abs(onset - next(phone.start_s for phone in spoken.phones if phone.symbol)) <= 0.04, line
        fine = articulate(spoken.phones, (np.arange(len(level)) + 0.5) * step).mouth[:, 0]
        lags = range(-15, 16)
        curves.append([np.corrcoef(level[15 + lag : len(level) - 15 + lag], fine[15:-15])[0, 1] for lag in lags])
    mean = np.mean(curves, axis=0)
    assert abs(int(np.argmax(mean)) - 15) * step <= 0.02
    assert mean.max() > 0.5


@long
def test_the_demo_clips_are_short_and_differ_by_seed_in_the_head_only() -> None:
    clips, others = demo_clips(1), demo_clips(2)
    for name, clip in clips.items():
        assert 3 < clip.utterance.seconds < 8
        assert torch.equal(clip.waveform, others[name].waveform)
        assert torch.equal(clip.state[:, 10:], others[name].state[:, 10:])
        assert not torch.equal(clip.state[:, :10], others[name].state[:, :10])
