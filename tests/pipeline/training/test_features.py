"""The generator's data from videos: what the stages of a run make of them, on Ray and in this process."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

import cli
from imtalker.audio.waveform import normalise
from imtalker.checkpoints import save_generator, save_renderer
from imtalker.presets import PRESETS, build_seeded
from imtalker.training.flow_matching import training_losses
from imtalker.training.generator_run import fresh
from imtalker.training.motion_clips import clip_paths, read_clip, write_clip
from imtalker.training.motion_data import MotionData
from pipeline.avatars.conditions import read_conditions
from pipeline.avatars.folder import AvatarFolder
from pipeline.avatars.production import produce
from pipeline.config import InputLimits, RunSettings
from pipeline.errors import CannotRun
from pipeline.execute import Context, Executor, in_process
from pipeline.machines.cluster import connected
from pipeline.media.audio import decode_mono_16k
from pipeline.media.driver import DriverReader
from pipeline.run import prepare
from pipeline.training.features import FeaturesSummary, feature_settings, make_features
from tests.imtalker.published import split, write_hub_folder
from tests.media_files import cut_file, sine, smooth_picture, write_audio, write_video
from tests.pipeline.avatars.recorded import CLIPS, SCRIPT, performed, quiet

NAMES = [recipe.name for recipe in CLIPS]
PRESET = PRESETS["imtalker-tiny"]
TINY = RunSettings(model="imtalker-tiny", driver_face="unchecked")


@contextmanager
def nothing_to_make(context: Context) -> Iterator[Executor]:
    raise AssertionError("there was something to make")
    yield


def features(videos: Path, output: Path, settings: RunSettings = TINY, **more: Any) -> FeaturesSummary:
    more.setdefault("open_executor", in_process)
    info = prepare(settings, features_only=True)
    return make_features(str(videos), output, settings, info, progress=quiet(), **more)


@pytest.fixture(scope="module")
def people(tmp_path_factory: pytest.TempPathFactory) -> AvatarFolder:
    """Two avatars' clips."""
    folder = AvatarFolder(tmp_path_factory.mktemp("people"))
    produce(SCRIPT, folder, quiet(), perform=performed)
    return folder


@pytest.fixture(scope="module")
def videos(people: AvatarFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Those clips among videos that can't be used."""
    folder = tmp_path_factory.mktemp("videos")
    for name in NAMES:
        shutil.copy(people.video(name), folder)
    frames = [smooth_picture(seed) for seed in range(3)]
    cut_file(people.video(NAMES[0]), folder / "broken.mp4", 0.6)
    write_video(folder / "silent.mp4", frames)
    write_audio(folder / "unseen.m4v", sine(16_000, 8000)[None], 16_000, "aac")
    write_video(folder / "has space.mp4", frames, audio=sine(48_000, 5760)[None])
    for ending in ("mov", "mp4"):
        write_video(folder / f"twice.{ending}", frames, audio=sine(48_000, 5760)[None])
    (folder / "notes.txt").write_text("no video")
    return folder


@pytest.fixture(scope="module")
def made(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """By the command line, on Ray."""
    output = tmp_path_factory.mktemp("features") / "clips"
    arguments = ["--output", str(output), "--model", "imtalker-tiny", "--driver-face", "unchecked", "--json"]
    with connected(num_cpus=2):
        result = CliRunner().invoke(cli.app, ["train", "features", str(videos), *arguments])
    assert result.exit_code == 3, result.output
    return output, json.loads(result.stdout)


def test_good_videos_are_made_and_the_others_named(made: tuple[Path, dict[str, Any]]) -> None:
    output, summary = made
    assert (summary["videos"], summary["made"], summary["kept"], summary["failed"]) == (8, 2, 0, 6)
    failures = {failure["video"]: failure for failure in summary["failures"]}
    assert sorted(failures) == sorted(
        ["broken.mp4", "has space.mp4", "silent.mp4", "twice.mov", "twice.mp4", "unseen.m4v"]
    )
    assert {failure["kind"] for failure in failures.values()} == {"input"}
    assert all(failure["hint"] for failure in failures.values())
    assert "expected sound, found none" in failures["silent.mp4"]["message"]
    assert "found 'has space'" in failures["has space.mp4"]["message"]
    assert "2 videos are called 'twice'" in failures["twice.mov"]["message"]
    assert "unseen.m4v" in failures["unseen.m4v"]["message"] and "broken.mp4" in failures["broken.mp4"]["message"]
    assert sorted(path.stem for path in (output / "motion").iterdir()) == sorted(NAMES)
    assert summary["computed"]["features"] >= 4
    assert not list(output.rglob("*.part"))


@pytest.mark.parametrize("name", NAMES)
def test_clips_hold_what_the_plain_networks_say(made: tuple[Path, Any], people: AvatarFolder, name: str) -> None:
    renderer, generator = build_seeded(PRESET)
    frames = np.concatenate(list(DriverReader(people.video(name), PRESET.renderer.resolution, InputLimits())))
    waveform = decode_mono_16k(people.video(name), InputLimits())
    clip = read_clip(made[0], name)
    with torch.no_grad():
        pictures = torch.from_numpy(frames[::5]).permute(0, 3, 1, 2).float() / 255
        codes = renderer.encode_motion(pictures)
        heard = generator.encode_audio(normalise(torch.from_numpy(waveform)[None]))[0]
    assert len(clip) == len(frames) <= len(heard)
    torch.testing.assert_close(clip.motion[::5], codes, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(clip.audio, heard[: len(clip)], atol=1e-5, rtol=1e-4)
    assert all(rows.isnan().all() for rows in (clip.pose, clip.camera, clip.gaze))
    assert [rows.shape[1] for rows in (clip.pose, clip.camera, clip.gaze)] == [3, 3, 2]


def test_a_second_call_makes_what_is_missing_alone(made: tuple[Path, Any], videos: Path, tmp_path: Path) -> None:
    output = tmp_path / "clips"
    shutil.copytree(made[0], output)
    good = tmp_path / "good"
    good.mkdir()
    for name in NAMES:
        shutil.copy2(videos / f"{name}.mp4", good)
    first = features(good, output)
    assert (first.made, first.computed) == (2, {}), "other files of the same content are not computed again"
    again = features(good, output, open_executor=nothing_to_make)
    assert (again.made, again.kept, again.frames, again.exit_code) == (0, 2, 0, 0)
    before = clip_paths(output, NAMES[1])["smirk"].stat().st_mtime_ns
    whole = clip_paths(output, NAMES[0])["motion"].read_bytes()
    clip_paths(output, NAMES[0])["motion"].unlink()
    repaired = features(good, output)
    assert (repaired.made, repaired.kept, repaired.computed) == (1, 1, {})
    assert clip_paths(output, NAMES[0])["motion"].read_bytes() == whole
    assert clip_paths(output, NAMES[1])["smirk"].stat().st_mtime_ns == before
    # A clip of a video that is another one now, and can't be read, is none of this set.
    (good / f"{NAMES[0]}.mp4").write_bytes(b"no video")
    broken = features(good, output)
    assert (broken.kept, broken.failed, broken.exit_code) == (1, 1, 3)
    assert not any(path.exists() for path in clip_paths(output, NAMES[0]).values())


def test_clips_of_others_are_not_replaced(made: tuple[Path, Any], people: AvatarFolder, tmp_path: Path) -> None:
    write_clip(tmp_path, NAMES[0], read_clip(made[0], NAMES[0]))
    before = {path: path.read_bytes() for path in clip_paths(tmp_path, NAMES[0]).values()}
    shutil.copytree(made[0] / "cache", tmp_path / "cache")
    summary = features(people.root / "clips", tmp_path)
    assert (summary.made, summary.failed, summary.computed) == (1, 1, {})
    assert "was not made by this command" in summary.failures[0]["message"]
    assert {path: path.read_bytes() for path in before} == before


def test_states_of_avatars_become_conditions(made: tuple[Path, Any], people: AvatarFolder, tmp_path: Path) -> None:
    output, states = tmp_path / "clips", tmp_path / "states"
    shutil.copytree(made[0] / "cache", output / "cache")
    shutil.copytree(people.root / "states", states)
    summary = features(people.root / "clips", output, states=states)
    assert (summary.made, summary.failed, summary.computed) == (2, 0, {})
    for name in NAMES:
        clip, known = read_clip(output, name), read_conditions(people.states(name))
        for rows, expected in ((clip.pose, known.pose), (clip.camera, known.camera), (clip.gaze, known.gaze)):
            np.testing.assert_array_equal(rows.numpy(), expected)
        assert clip.pose.std() > 0 and clip.gaze.std() > 0
    assert features(people.root / "clips", output, states=states, open_executor=nothing_to_make).kept == 2
    pq.write_table(pq.read_table(states / f"{NAMES[0]}.parquet").slice(1), states / f"{NAMES[0]}.parquet")
    (states / f"{NAMES[1]}.parquet").unlink()
    failed = {
        failure["video"]: failure["message"]
        for failure in features(people.root / "clips", output, states=states).failures
    }
    assert "expected a row of states for each of" in failed[f"{NAMES[0]}.mp4"]
    assert f"expected the states of {NAMES[1]}.mp4" in failed[f"{NAMES[1]}.mp4"]


def test_what_was_made_trains(made: tuple[Path, Any], tmp_path: Path) -> None:
    longest = max(NAMES, key=lambda name: len(read_clip(made[0], name)))
    for number in range(102):
        for kind, path in clip_paths(made[0], longest).items():
            target = clip_paths(tmp_path, f"clip{number:03}")[kind]
            target.parent.mkdir(exist_ok=True)
            os.link(path, target)
    data = MotionData(tmp_path, PRESET.generator, seed=0, rows=2)
    (batch,) = data.parts(0, [0], 1)
    losses = training_losses(fresh(PRESET.generator, PRESET.seed), batch, torch.Generator().manual_seed(0))
    assert losses.total.isfinite() and data.held_out(2).gaze.isnan().all()


def test_no_generator_is_needed(
    made: tuple[Path, Any], people: AvatarFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model whose weights are files: a renderer, and an audio encoder alone, or a generator that holds one."""
    monkeypatch.setitem(PRESETS, "imtalker", type(PRESET)("imtalker", PRESET.renderer, PRESET.generator, "published"))
    monkeypatch.setenv("IMTALKER_MODELS", str(tmp_path / "store"))
    renderer, generator = build_seeded(PRESET)
    save_renderer(renderer, tmp_path / "renderer.safetensors")
    save_generator(generator, tmp_path / "generator.safetensors")
    _, encoder = split(dict(generator.state_dict()))
    hub = write_hub_folder(tmp_path / "hub", encoder, PRESET.generator, file="model.safetensors")
    videos = tmp_path / "videos"
    videos.mkdir()
    write_video(videos / "short.mp4", [smooth_picture(seed) for seed in range(4)], audio=sine(48_000, 7680)[None])
    plain = {"model": "imtalker", "driver_face": "unchecked", "device": None, "download": False}
    weights = [f"renderer={tmp_path / 'renderer.safetensors'}"]
    settings = {
        "encoder": feature_settings(plain, weights, hub),
        "generator": feature_settings(plain, [*weights, f"generator={tmp_path / 'generator.safetensors'}"], None),
        "tiny": TINY,
    }
    clips = {}
    for name, chosen in settings.items():
        assert features(videos, tmp_path / name, chosen).made == 1
        clips[name] = read_clip(tmp_path / name, "short")
    for name in ("encoder", "generator"):
        torch.testing.assert_close(clips[name].motion, clips["tiny"].motion, atol=0, rtol=0)
        torch.testing.assert_close(clips[name].audio, clips["tiny"].audio, atol=0, rtol=0)
    with pytest.raises(CannotRun, match=r"weights of imtalker are missing in .*: config\.json"):
        prepare(feature_settings(plain, weights, None), features_only=True)
    with pytest.raises(CannotRun, match=r"weights of imtalker are missing in .*: generator\.ckpt"):
        prepare(settings["encoder"])
    with pytest.raises(CannotRun, match="an audio encoder is given twice"):
        feature_settings(plain, ["generator=g.safetensors"], hub)
