"""Runs: what is signed when, by whom, what a change of label or consent costs, and who is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from pipeline.config import RunSettings
from pipeline.errors import CannotRun
from pipeline.inputs.fetch import file_sha256
from pipeline.provenance.verify import Verification, verify
from pipeline.summary import RunSummary
from tests.pipeline.provenance.signers import files
from tests.runs import TINY, demo, results, run_manifest, write_manifest

ROW: dict[str, Any] = {"id": "spoken", "image": demo("ana.png"), "audio": demo("english.wav"), "consent": "form 7"}


def settings(**changes: Any) -> RunSettings:
    return RunSettings.model_validate(TINY.model_dump() | changes)


def record(output: Path, id: str = "spoken") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((output / "items" / f"{id}.json").read_text())
    return found


def checked(output: Path, id: str = "spoken") -> Verification:
    return verify(str(output / "videos" / f"{id}.mp4"), TINY)


@pytest.fixture(scope="module")
def unsigned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a manifest, and the output of a run under the label ``none``."""
    folder = tmp_path_factory.mktemp("labels")
    run_manifest(write_manifest(folder, [ROW]), folder / "out", settings(label="none"))
    return folder


@pytest.fixture(scope="module")
def labelled(unsigned: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, RunSummary]:
    """The same after a run under the default label, and what that run said."""
    folder = tmp_path_factory.mktemp("labelled") / "copy"
    shutil.copytree(unsigned, folder)
    return folder, run_manifest(str(folder / "manifest.parquet"), folder / "out")


@pytest.fixture
def signed(labelled: tuple[Path, RunSummary], tmp_path: Path) -> Path:
    """A copy of that, to be changed."""
    return shutil.copytree(labelled[0], tmp_path / "signed")


def test_without_label_nothing_is_signed(unsigned: Path) -> None:
    found = checked(unsigned / "out")
    assert (found.state, found.ai_generated, found.tags["imtalker_item"]) == ("unsigned", True, "spoken")
    assert "signature" not in record(unsigned / "out")["video"]
    assert results(unsigned / "out")["spoken"]["signature"] is None


def test_a_label_is_put_on_without_rendering(unsigned: Path, labelled: tuple[Path, RunSummary]) -> None:
    output, before, summary = labelled[0] / "out", record(unsigned / "out"), labelled[1]
    assert (summary.computed, summary.copied, summary.ok) == ({}, 1, 1)
    after, found = record(output), checked(output)
    for name in ("fingerprint", "seed", "inputs"):
        assert after[name] == before[name]
    assert after["video"]["frames_sha256"] == before["video"]["frames_sha256"]
    assert found.state == "unchanged" and found.throw_away
    assert found.made["item"] == "spoken" and found.made["consent"] == "form 7"
    assert found.made["frames_sha256"] == after["video"]["frames_sha256"]
    assert found.made["inputs_sha256"] == {role: given["sha256"] for role, given in after["inputs"].items()}
    # Records and results say who signed, and that nobody has reason to trust it.
    signature = after["video"]["signature"]
    assert (signature["signed_by"], signature["untrusted"]) == ("throw-away", True)
    assert signature["run"] == found.made["run"]
    row = results(output)["spoken"]
    assert (row["signature"], row["consent"]) == ("throw-away", "form 7")
    assert summary.signature == signature
    # The hash is that of the file as it is, signed.
    video = output / "videos" / "spoken.mp4"
    assert after["video"]["sha256"] == file_sha256(video)
    assert after["video"]["size"] == video.stat().st_size


def test_a_second_run_signs_nothing_again(signed: Path) -> None:
    output, before = signed / "out", record(signed / "out")
    summary = run_manifest(str(signed / "manifest.parquet"), output)
    assert (summary.computed, summary.copied, summary.reused) == ({}, 0, 1)
    assert record(output) == before


def test_another_certificate_makes_nothing_again(signed: Path, tmp_path: Path) -> None:
    by, _ = files(tmp_path)
    summary = run_manifest(str(signed / "manifest.parquet"), signed / "out", settings(signing=by.model_dump()))
    assert (summary.computed, summary.copied, summary.reused) == ({}, 0, 1)


def test_a_change_of_consent_is_signed_without_rendering(signed: Path, tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path, [ROW | {"consent": "form 8"}])
    summary = run_manifest(manifest, signed / "out")
    assert (summary.computed, summary.copied) == ({}, 1)
    assert checked(signed / "out").made["consent"] == "form 8"


def test_a_renamed_item_is_signed_under_its_name(signed: Path, tmp_path: Path) -> None:
    manifest = write_manifest(tmp_path, [ROW | {"id": "renamed"}])
    summary = run_manifest(manifest, signed / "out")
    assert (summary.computed, summary.copied) == ({}, 1)
    found = checked(signed / "out", "renamed")
    assert (found.state, found.made["item"], found.tags["imtalker_item"]) == ("unchanged", "renamed", "renamed")
    assert record(signed / "out", "renamed")["video"]["sha256"] == file_sha256(
        signed / "out" / "videos" / "renamed.mp4"
    )


def test_a_visible_label_is_rendered_anew_and_leaves_the_frames_hash(signed: Path) -> None:
    output, before = signed / "out", record(signed / "out")
    plain = pictures(output)
    summary = run_manifest(str(signed / "manifest.parquet"), output, settings(label="cn", producer="Studio"))
    assert (summary.computed, summary.copied) == ({"render": 1}, 0)
    after, found = record(output), checked(output)
    assert after["video"]["frames_sha256"] == before["video"]["frames_sha256"]
    assert after["fingerprint"] != before["fingerprint"]
    assert found.state == "unchanged"
    assert json.loads(found.tags["AIGC"])["ContentProducer"] == "Studio"
    difference = np.abs(pictures(output).astype(int) - plain).max((0, 3))
    assert difference[64:, 64:].max() > 100 and difference[:60, :40].max() < 100
    # And off again.
    summary = run_manifest(str(signed / "manifest.parquet"), output)
    assert summary.computed == {"render": 1}
    assert record(output)["fingerprint"] == before["fingerprint"]


def pictures(output: Path) -> np.ndarray:
    with av.open(str(output / "videos" / "spoken.mp4")) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_the_users_certificate_signs_and_stands_in_no_record(tmp_path: Path) -> None:
    by, authorities = files(tmp_path / "secret-folder")
    output = tmp_path / "out"
    summary = run_manifest(write_manifest(tmp_path, [ROW]), output, settings(signing=by.model_dump()))
    assert summary.signature is not None and summary.signature["signed_by"] == "certificate"
    found = verify(str(output / "videos" / "spoken.mp4"), TINY, authorities=authorities)
    assert found.trusted and found.state == "unchanged"
    assert record(output)["video"]["signature"]["untrusted"] is False
    assert by.key is not None
    secret = Path(by.key).read_text().splitlines()[1].encode()
    for path in output.rglob("*.*"):
        if path.is_file():
            content = path.read_bytes()
            assert b"secret-folder" not in content and secret not in content, path


def test_a_certificate_that_can_not_sign_stops_the_run_before_it_starts(tmp_path: Path) -> None:
    by, _ = files(tmp_path / "own", usage=False)
    with pytest.raises(CannotRun, match="C2PA can't sign with it"):
        run_manifest(write_manifest(tmp_path, [ROW]), tmp_path / "out", settings(signing=by.model_dump()))
    assert not (tmp_path / "out").exists()


def test_rows_without_consent_are_refused_at_the_plan(tmp_path: Path) -> None:
    rows = [ROW, ROW | {"id": "silent", "consent": None}, ROW | {"id": "no", "consent": "no"}]
    summary = run_manifest(write_manifest(tmp_path, rows), tmp_path / "out", settings(require_consent=True))
    assert (summary.rows, summary.ok, summary.failed, summary.skipped) == (3, 1, 2, 0)
    assert (summary.exit_code, summary.errors) == (3, {"input": 2})
    found = results(tmp_path / "out")
    assert [(row["status"], row["error_stage"], row["consent"]) for row in found.values()] == [
        ("ok", None, "form 7"),
        ("failed", "plan", None),
        ("failed", "plan", "no"),
    ]
    assert found["silent"]["error_message"] == "consent: required by this run, found nothing"
    assert checked(tmp_path / "out").made["consent"] == "form 7"
    assert [path.name for path in (tmp_path / "out" / "videos").iterdir()] == ["spoken.mp4"]
