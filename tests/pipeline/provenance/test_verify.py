"""Real signed files: what verify says of them, and of every way to change one."""

from __future__ import annotations

import json
import shutil
from io import BytesIO
from pathlib import Path

import c2pa
import numpy as np
import pytest

from pipeline.config import InputLimits, RunSettings, VideoSettings
from pipeline.errors import CannotRun, ItemError
from pipeline.media.encode import VideoWriter
from pipeline.media.retag import retag
from pipeline.media.verify import measure_video
from pipeline.provenance.certificate import Signing, signing, throw_away
from pipeline.provenance.manifest import SETTINGS, sign
from pipeline.provenance.origin import AI_GENERATED, Origin
from pipeline.provenance.verify import Verification, verification_text, verify
from tests.pipeline.provenance.signers import RECORD, files
from tests.runs import demo

ORIGIN = Origin.of(RECORD)
FRAMES_SHA256 = "9" * 64


@pytest.fixture(scope="module")
def unsigned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("unsigned") / "one.mp4"
    frames = np.random.default_rng(0).integers(0, 255, (30, 64, 64, 3), np.uint8)
    with VideoWriter(
        path,
        width=64,
        height=64,
        settings=VideoSettings(segment_seconds=0.8),
        limits=InputLimits(),
        audio=Path(demo("english.wav")),
        tags=ORIGIN.tags(),
    ) as writer:
        writer.write(frames)
    return path


@pytest.fixture
def video(unsigned: Path, tmp_path: Path) -> Path:
    """A copy of it, to be signed."""
    return Path(shutil.copy(unsigned, tmp_path / "one.mp4"))


def signed(path: Path, by: Signing | None = None, origin: Origin = ORIGIN) -> Path:
    sign(path, origin, by or throw_away(), frames_sha256=FRAMES_SHA256)
    return path


def checked(path: Path, authorities: Path | None = None) -> Verification:
    return verify(str(path), RunSettings(), authorities=authorities)


def test_a_signed_video_says_who_made_it_and_from_what(video: Path) -> None:
    by = throw_away()
    found = checked(signed(video, by))
    assert (found.state, found.exit_code, found.problems) == ("unchanged", 0, ())
    assert found.ai_generated and found.program["name"] == "imtalker"
    assert found.made == {
        "item": "one",
        "model": "imtalker-tiny",
        "weights": "random",
        "weights_sha256": {"renderer": "a" * 64},
        "seed": 2**62 + 1,
        "settings_sha256": ORIGIN.settings_sha256,
        "fingerprint": "f" * 64,
        "inputs_sha256": {"image": "1" * 64, "audio": "2" * 64},
        "label": "eu",
        "consent": "form 7",
        "version": "1.2.3",
        "run": by.run,
        "frames_sha256": FRAMES_SHA256,
    }
    assert [(given["title"], given["description"], given["relationship"]) for given in found.ingredients] == [
        ("audio", "sha256:" + "2" * 64, "inputTo"),
        ("image", "sha256:" + "1" * 64, "inputTo"),
    ]
    text = verification_text(found)
    assert "not changed since it was signed" in text and "image sha256 " + "1" * 64 in text
    json.dumps(found.as_dict())


def test_names_of_inputs_are_not_given_away(video: Path) -> None:
    assert b"secret" not in signed(video).read_bytes()


def test_the_manifest_is_what_c2pa_asks_for(video: Path) -> None:
    """As another reader of C2PA sees it."""
    with signed(video).open("rb") as file, c2pa.Reader("video/mp4", file) as reader:
        store = json.loads(reader.json())
    assert store["validation_state"] == "Valid"
    manifest = store["manifests"][store["active_manifest"]]
    assertions = {found["label"]: found["data"] for found in manifest["assertions"]}
    (action,) = assertions["c2pa.actions.v2"]["actions"]
    assert (action["action"], action["digitalSourceType"]) == ("c2pa.created", AI_GENERATED)
    assert len(action["parameters"]["ingredients"]) == len(manifest["ingredients"]) == 2


def test_signing_leaves_pictures_sound_and_tags(unsigned: Path, video: Path) -> None:
    before, after = measure_video(unsigned, InputLimits()), measure_video(signed(video), InputLimits())
    assert before == after
    tags = checked(video).tags
    assert ORIGIN.tags().items() <= tags.items()
    assert list(video.parent.iterdir()) == [video], "nothing is left beside it"


def test_a_throw_away_certificate_is_untrusted_and_said_to_be(video: Path) -> None:
    found = checked(signed(video))
    assert (found.trusted, found.throw_away) == (False, True)
    assert "untrusted: a run made it for itself" in verification_text(found)


def test_a_certificate_is_trusted_where_its_authority_is(video: Path, tmp_path: Path) -> None:
    settings, authorities = files(tmp_path / "own")
    _, others = files(tmp_path / "others")
    signed(video, signing(settings))
    assert (checked(video).trusted, checked(video).throw_away) == (False, False)
    found = checked(video, authorities)
    assert found.trusted and found.state == "unchanged"
    assert (found.signer["issuer"], found.signer["common_name"]) == ("Studio", "Signer")
    assert "trusted: by one of the given authorities" in verification_text(found)
    stranger = checked(video, others)
    assert (stranger.trusted, stranger.state) == (False, "unchanged")


def test_a_flipped_bit_anywhere_is_found(video: Path, tmp_path: Path) -> None:
    """In tags, times, pictures, sound, and in the manifest itself."""
    whole = signed(video).read_bytes()
    places = [whole.index(b"imtalker-tiny", whole.index(b"moov")), whole.index(b"mdat") + 100]
    places += [*range(whole.index(b"mdat") + 200, len(whole), len(whole) // 7), len(whole) - 1]
    places += [whole.index(b"form 7"), whole.index(b"c2pa.created")]
    for place in places:
        changed = bytearray(whole)
        changed[place] ^= 1
        (tmp_path / "changed.mp4").write_bytes(changed)
        found = checked(tmp_path / "changed.mp4")
        assert (found.state, found.exit_code) == ("changed", 3), place
        assert found.problems
        assert "CHANGED since it was signed" in verification_text(found)


def test_a_video_that_was_cut_off_is_changed(video: Path) -> None:
    whole = signed(video).read_bytes()
    video.write_bytes(whole[: -len(whole) // 4])
    assert checked(video).state == "changed"


def test_without_manifest_nothing_is_known(video: Path) -> None:
    found = checked(video)
    assert (found.state, found.exit_code, found.ai_generated) == ("unsigned", 3, True)
    assert found.tags["imtalker_item"] == "one"
    assert "no signed manifest" in verification_text(found)
    assert checked(Path(demo("driver.mp4"))).ai_generated is None


def test_another_programs_manifest_over_it_is_an_edit(video: Path) -> None:
    other, edited = throw_away(), BytesIO()
    info = c2pa.C2paSignerInfo(b"es256", other.chain, other.key, None)
    with signed(video).open("rb") as parent:
        wanted = {"claim_generator_info": [{"name": "Cutter", "version": "1"}]}
        context, signer = c2pa.Context.from_dict(SETTINGS), c2pa.Signer.from_info(info)
        with context, signer, c2pa.Builder.from_json(json.dumps(wanted), context=context) as builder:
            builder.set_intent(c2pa.C2paBuilderIntent.EDIT)
            builder.add_ingredient({"title": "one", "relationship": "parentOf"}, "video/mp4", parent)
            parent.seek(0)
            builder.sign(signer, "video/mp4", parent, edited)
    video.write_bytes(edited.getvalue())
    found = checked(video)
    assert found.state == "changed"
    assert found.problems == ("edited since: a manifest by Cutter stands over the one that the video was made with",)
    assert found.made["item"] == "one"


def test_a_retagged_video_is_signed_anew(video: Path, tmp_path: Path) -> None:
    signed(video)
    renamed = Origin.of(RECORD.model_copy(update={"id": "two"}))
    copy = tmp_path / "two.mp4"
    retag(video, copy, renamed.tags())
    assert checked(copy).state == "unsigned", "no manifest of another file"
    found = checked(signed(copy, origin=renamed))
    assert (found.state, found.made["item"], found.tags["imtalker_item"]) == ("unchanged", "two", "two")


def test_what_can_not_be_signed_is_left_as_it_was(tmp_path: Path) -> None:
    video = tmp_path / "broken.mp4"
    video.write_bytes(b"no video")
    with pytest.raises(ItemError, match="signing the video failed") as caught:
        signed(video)
    assert caught.value.kind == "infrastructure"
    assert video.read_bytes() == b"no video" and list(tmp_path.iterdir()) == [video]


def test_what_is_no_video_can_not_be_verified(tmp_path: Path) -> None:
    with pytest.raises(CannotRun, match="does not exist"):
        checked(tmp_path / "nothing.mp4")
    with pytest.raises(CannotRun, match="expected a video"):
        checked(Path(demo("ana.png")))
    (tmp_path / "empty.pem").write_text("nothing")
    with pytest.raises(CannotRun, match="expected certificates in PEM, found none"):
        checked(Path(demo("driver.mp4")), tmp_path / "empty.pem")
