"""Speech by espeak-ng's library, with the times of its phonemes.

Needed only where data are made: ``apt-get install espeak-ng``.
"""

from __future__ import annotations

import _ctypes
import ctypes
import ctypes.util
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from imtalker.avatars.speech.utterance import PAUSE, Phone, Utterance, Word, silence_before

RATES = (80, 450)
PITCHES = (0, 99)

# speak_lib.h of espeak-ng
_SYNCHRONOUS = 2
_PHONEME_EVENTS, _IPA, _DONT_EXIT = 0x0001, 0x0002, 0x8000
_UTF8, _END_PAUSE = 1, 0x1000
_RATE, _PITCH = 1, 3
_OK = 0
_LIST_TERMINATED, _WORD, _SENTENCE, _PHONEME = 0, 1, 2, 7

# The library keeps its state in globals, so one utterance at a time.
_LOCK = threading.Lock()


class EspeakError(RuntimeError):
    """espeak-ng is missing or failed."""


class _Id(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_void_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_int),
        ("unique_identifier", ctypes.c_uint),
        ("text_position", ctypes.c_int),
        ("length", ctypes.c_int),
        ("audio_position_ms", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user_data", ctypes.c_void_p),
        ("id", _Id),
    ]


_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_int, ctypes.POINTER(_Event))


@dataclass
class _Take:
    """What the callback was handed: it only copies, because its buffers live no longer than the call."""

    rate: int
    pieces: list[bytes] = field(default_factory=list)
    events: list[tuple[int, int, int, int, str]] = field(default_factory=list)

    def __call__(self, wave: int | None, count: int, events: ctypes._Pointer[_Event]) -> int:
        if wave and count > 0:
            self.pieces.append(ctypes.string_at(wave, 2 * count))
        index = 0
        while (event := events[index]).type != _LIST_TERMINATED:
            # Eight bytes at most, so a character may be cut; the field is text in phoneme events only.
            symbol = event.id.string.decode("utf-8", errors="ignore") if event.type == _PHONEME else ""
            self.events.append((event.type, event.text_position, event.length, event.sample, symbol))
            index += 1
        return 0


def speak(text: str, voice: str, rate: int = 170, pitch: int = 50) -> Utterance:
    """``text`` spoken by ``voice``: a language of espeak-ng, with a variant if wished (``"en-us"``, ``"de+f2"``).

    ``rate`` is in words a minute (80..450), ``pitch`` runs from 0 to 99. Equal arguments give equal samples, whatever
    was spoken before: what the library keeps from utterance to utterance shifts its pitch and its times, so each
    utterance gets a freshly loaded library (about 5 ms).

    Raises ValueError for empty text, an unknown voice, and numbers out of range; EspeakError where the library is
    missing, fails, or is held by another part of the process.
    """
    if not text.strip() or "\0" in text:
        raise ValueError(f"expected text to speak without NUL characters, found {text!r}")
    for name, value, (least, most) in (("rate", rate, RATES), ("pitch", pitch, PITCHES)):
        if not least <= value <= most:
            raise ValueError(f"{name} must lie in {least}..{most}, found {value}")
    with _LOCK, _library() as library:
        take = _Take(_initialise(library))
        callback = _CALLBACK(take)
        library.espeak_SetSynthCallback(callback)
        _choose(library, voice)
        library.espeak_SetParameter(_RATE, rate, 0)
        library.espeak_SetParameter(_PITCH, pitch, 0)
        encoded = text.encode()
        arguments = (encoded, ctypes.c_size_t(len(encoded) + 1), 0, 1, 0, _UTF8 | _END_PAUSE, None, None)
        for code in (library.espeak_Synth(*arguments), library.espeak_Synchronize()):
            if code != _OK:
                raise EspeakError(f"espeak-ng could not speak {text!r} by voice {voice!r}: error {code}")
    return _utterance(text, voice, take)


@contextmanager
def _library() -> Iterator[ctypes.CDLL]:
    """A library without a past."""
    name = ctypes.util.find_library("espeak-ng")
    if name is None:
        raise EspeakError(
            "expected the library libespeak-ng.so.1, found none: speech is made by espeak-ng; "
            "`apt-get install espeak-ng`"
        )
    if _is_loaded(name):
        raise EspeakError(f"{name} is in use elsewhere in this process: speech would depend on what it said before")
    library = ctypes.CDLL(name)
    try:
        # Breath noise comes from the C library's generator.
        ctypes.CDLL(None).srand(1)
        yield library
    finally:
        library.espeak_Terminate()
        _ctypes.dlclose(library._handle)


def _is_loaded(name: str) -> bool:
    try:
        held = ctypes.CDLL(name, mode=os.RTLD_NOLOAD)
    except OSError:
        return False
    _ctypes.dlclose(held._handle)
    return True


def _initialise(library: ctypes.CDLL) -> int:
    """The rate in Hz."""
    rate = library.espeak_Initialize(_SYNCHRONOUS, 0, None, _PHONEME_EVENTS | _IPA | _DONT_EXIT)
    if rate <= 0:
        raise EspeakError(
            f"espeak-ng could not start (error {rate}): are its data (package espeak-ng-data) installed, and is "
            "ESPEAK_DATA_PATH unset or right?"
        )
    return int(rate)


def _choose(library: ctypes.CDLL, voice: str) -> None:
    _, plus, variant = voice.partition("+")
    library.espeak_Info.restype = ctypes.c_char_p
    folder = ctypes.c_char_p()
    library.espeak_Info(ctypes.byref(folder))
    # An unknown variant would be ignored by the library.
    known = not plus or (Path(os.fsdecode(folder.value or b"")) / "voices" / "!v" / variant).is_file()
    if not known or library.espeak_SetVoiceByName(voice.encode()) != _OK:
        raise ValueError(
            f"espeak-ng has no voice {voice!r}: expected a language such as 'en-us', with or without a variant as in "
            "'de+f2'; `espeak-ng --voices` and `espeak-ng --voices=variant` list them"
        )


def _utterance(text: str, voice: str, take: _Take) -> Utterance:
    samples = np.frombuffer(b"".join(take.pieces), dtype=np.int16)
    marks = [(0, PAUSE)]
    for kind, _, _, sample, written in take.events:
        # "(en)" says that a word is read in another language.
        if kind != _PHONEME or written.startswith("("):
            continue
        while marks and marks[-1][0] >= sample:
            marks.pop()
        symbol = written.strip("_: ")
        if not marks or (marks[-1][1], symbol) != (PAUSE, PAUSE):
            marks.append((sample, symbol))
    ends = [start for start, _ in marks[1:]] + [len(samples)]
    phones = tuple(
        Phone(symbol, start / take.rate, end / take.rate, silence_before(samples, start) / take.rate)
        for (start, symbol), end in zip(marks, ends, strict=True)
        if end > start
    )
    words = tuple(
        Word(position - 1, length, sample / take.rate)
        for kind, position, length, sample, _ in take.events
        if kind == _WORD and text[position - 1 : position - 1 + length].strip()
    )
    sentences = tuple(sample / take.rate for kind, _, _, sample, _ in take.events if kind == _SENTENCE)
    return Utterance(text, voice, take.rate, samples, phones, words, sentences)
