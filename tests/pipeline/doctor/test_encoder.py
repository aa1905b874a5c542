"""Encoders on one frame."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.config import RunSettings, VideoSettings
from pipeline.doctor import encoder
from pipeline.doctor.finding import Request


def test_libx264_encodes_a_frame() -> None:
    found = [f for f in encoder.check(Request()) if "libx264" in f.message]
    assert [f.status for f in found] == ["ok"]


@pytest.mark.usefixtures("_no_driver")
def test_nvenc_fails_where_it_is_wanted_and_there_is_no_gpu() -> None:
    (found,) = encoder.check(Request(settings=RunSettings(video=VideoSettings(encoder="nvenc"))))
    assert found.status == "fail"
    assert "h264_nvenc" in found.message


def test_nvenc_is_tried_where_a_driver_is_and_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    """A driver without a GPU that can encode, as on machines for training."""
    monkeypatch.setattr(encoder, "driver_version", lambda: "570.1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    fine, nvenc = encoder.check(Request())
    assert (fine.status, nvenc.status) == ("ok", "note")


@pytest.fixture
def _no_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    if Path("/proc/driver/nvidia/version").exists():
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
