"""The command from records alone: which flags, and what it can't know."""

from __future__ import annotations

import shlex
from typing import Any

import typer

import cli
from pipeline.config import InputLimits, RunSettings, VideoSettings
from pipeline.item.reproduce import Reproduction, reproduce
from pipeline.ledger import Record
from pipeline.reuse.fingerprint import digest
from pipeline.tasks import Worker

HASHES = {"renderer": "a" * 64}
URIS = {"image": "s3://b/a b.png", "audio": "s3://b/$(x).wav"}
CROP = {"rule": "audio", "face": "largest", "detector": "dlib"}
VIDEO = VideoSettings().model_dump()


def record(**changes: Any) -> Record:
    values: dict[str, Any] = {
        "id": "one",
        "index": 0,
        "status": "ok",
        "mode": "audio",
        "seed": 5,
        "model": "imtalker",
        "weights_sha256": HASHES,
        "precision": "float16",
        "uris": URIS,
        "settings": {"mode": "audio", "crop": CROP, "video": VIDEO, "nfe": 12},
        "limits": digest(InputLimits().model_dump()),
    }
    return Record.model_validate(values | changes)


def run_json(**settings: Any) -> dict[str, Any]:
    return {"settings": RunSettings(**settings).model_dump(), "model": {"weights_sha256": HASHES}}


def parsed(made: Reproduction) -> dict[str, Any]:
    """The parameters as the program itself reads them."""
    program, command, *words = shlex.split(made.command)
    assert (program, command) == ("imtalker", "generate")
    generate = typer.main.get_command(cli.app).commands["generate"]  # type: ignore[attr-defined]
    context = generate.make_context("generate", words)
    return {name: value for name, value in context.params.items() if value not in (None, (), [])}


def test_files_and_settings_come_through_the_shell_as_they_were() -> None:
    found = parsed(reproduce(record(), {}, run_json()))
    assert found == {
        "image": "s3://b/a b.png",
        "audio": "s3://b/$(x).wav",
        "output": "one.mp4",
        "item_seed": 5,
        "model": "imtalker",
        "precision": "float16",
        "nfe": 12,
        "as_json": False,
    }


def test_threads_of_each_stage_and_settings_without_a_flag_of_their_own_are_set_by_path() -> None:
    worker = Worker(pid=1, node="n", gpus="", threads=3)
    settings = {"crop": None, "video": VIDEO | {"audio_bitrate": 64_000, "crf": 30}, "items_in_flight": 4}
    found = parsed(reproduce(record(workers={"render": worker}, settings=settings), {}, run_json()))
    assert found["set"] == ["video.audio_bitrate=64000", "resources.render.threads=3"]
    assert (found["crf"], found["crop"], found["items_in_flight"], found["device"]) == (30, False, 4, "cpu")


def test_what_the_record_leaves_out_is_taken_from_a_run_with_the_same_weights() -> None:
    limits = {"max_media_seconds": 60.0}
    run = run_json(weights={"renderer": "/w/r.safetensors"}, limits=limits, device="cuda")
    made = record(limits=digest(InputLimits(max_media_seconds=60.0).model_dump()))
    found = parsed(reproduce(made, {}, run))
    assert found["weights"] == ["renderer=/w/r.safetensors"]
    assert found["set"] == ["limits.max_media_seconds=60.0"]
    assert found["device"] == "cuda"
    other = reproduce(record(weights_sha256={"renderer": "b" * 64}, limits="elsewhere"), {}, run)
    assert "weights" not in parsed(other)
    assert [note.split()[0:3] for note in other.notes] == [
        ["paths", "of", "weights"],
        ["the", "limits", "on"],
        ["storage", "options", "are"],
    ]


def test_a_row_that_was_never_planned_is_made_from_the_results() -> None:
    bare = Record(id="../x", index=3, status="failed")
    found = parsed(reproduce(bare, {"image": "a.png", "driver": "d.mp4"}, None))
    assert found == {"image": "a.png", "driver": "d.mp4", "output": "item.mp4", "model": "imtalker", "as_json": False}


def test_the_mode_is_named_where_there_are_two_sources() -> None:
    both = record(mode="driver", uris={"image": "i", "audio": "a", "driver": "d"}, seed=None, settings={"seed": 9})
    found = parsed(reproduce(both, {}, run_json()))
    assert (found["motion_from"], found["item_seed"]) == ("driver", 9)
    derived = record(seed=None, settings={"seed": {"run": 11}})
    assert parsed(reproduce(derived, {}, run_json()))["seed"] == 11
