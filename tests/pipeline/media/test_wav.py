from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.media.wav import check_wav, write_wav
from tests.media_files import cut_file


def test_samples_come_back_and_what_is_too_loud_is_clipped(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", np.array([0.0, 0.5, -1.0, 1.0, 2.0, -2.0], np.float32), 16_000)
    check_wav(tmp_path / "a.wav")
    with wave.open(str(tmp_path / "a.wav")) as file:
        assert (file.getnchannels(), file.getsampwidth(), file.getframerate()) == (1, 2, 16_000)
        samples = np.frombuffer(file.readframes(10), "<i2")
    assert samples.tolist() == [0, 16384, -32767, 32767, 32767, -32767]


def test_a_cut_off_file_is_refused(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", np.zeros(1000, np.float32), 8_000)
    with pytest.raises(InputError, match=r"a_cut\.wav is cut off"):
        check_wav(cut_file(tmp_path / "a.wav", tmp_path / "a_cut.wav", 0.5))
