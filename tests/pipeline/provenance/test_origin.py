"""Tags: what they say under each label."""

from __future__ import annotations

import json

from pipeline.provenance.origin import AI_GENERATED, Origin
from tests.pipeline.provenance.signers import RECORD


def origin(**settings: object) -> Origin:
    return Origin.of(RECORD.model_copy(update={"settings": {"nfe": 10, **settings}}))


def test_every_video_says_what_made_it() -> None:
    found = origin(label="none")
    assert found.tags() == {
        "comment": "AI-generated video",
        "imtalker_item": "one",
        "imtalker_model": "imtalker-tiny",
        "imtalker_weights": "random",
        "imtalker_weights_sha256_renderer": "a" * 64,
        "imtalker_seed": str(2**62 + 1),
        "imtalker_settings_sha256": found.settings_sha256,
        "imtalker_fingerprint": "f" * 64,
        "imtalker_input_sha256_image": "1" * 64,
        "imtalker_input_sha256_audio": "2" * 64,
    }
    assert not found.signed
    assert found.settings_sha256 != origin(label="none", seed=1).settings_sha256


def test_the_eus_label_is_the_source_type_and_a_signature() -> None:
    found = origin(label="eu", producer="Studio")
    assert found.signed
    assert found.tags()["digital_source_type"] == AI_GENERATED
    assert found.tags()["imtalker_producer"] == "Studio"
    assert "AIGC" not in found.tags()


def test_chinas_label_is_the_field_too() -> None:
    found = origin(label="cn", producer="工作室")
    assert found.signed
    assert json.loads(found.tags()["AIGC"]) == {
        "Label": "1",
        "ContentProducer": "工作室",
        "ProduceID": "one-" + "f" * 16,
        "ReservedCode1": "",
        "ContentPropagator": "",
        "PropagateID": "",
        "ReservedCode2": "",
    }
    assert "工作室" in found.tags()["AIGC"]


def test_a_record_of_before_labels_has_none() -> None:
    assert origin().label == "none"
