"""Fingerprints name values, not how they were written down."""

from __future__ import annotations

import hashlib

import pytest

from pipeline.config import RunSettings
from pipeline.reuse.fingerprint import cache_key, digest, item_seed, model_facts
from pipeline.talker import TalkerInfo

INPUTS = {"image": "a" * 64, "audio": "b" * 64}


def test_a_digest_is_the_hash_of_canonical_json() -> None:
    text = '{"a":[1,2.5,null,true],"b":"\\u00e4"}'
    assert digest({"b": "ä", "a": [1, 2.5, None, True]}) == hashlib.sha256(text.encode()).hexdigest()


def test_the_order_of_keys_does_not_matter_and_that_of_lists_does() -> None:
    assert digest({"a": 1, "b": {"c": 2, "d": 3}}) == digest({"b": {"d": 3, "c": 2}, "a": 1})
    assert digest([1, 2]) != digest([2, 1])


def test_different_values_have_different_digests() -> None:
    values: list[object] = [
        None,
        False,
        0,
        "",
        "0",
        [],
        {},
        [None],
        {"a": None},
        [[]],
        ["a", "b"],
        ["ab"],
        1.5,
        "é",
        "e\u0301",
    ]
    assert len({digest(value) for value in values}) == len(values)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, object(), b"x"])
def test_what_has_no_one_spelling_is_refused(value: object) -> None:
    with pytest.raises((ValueError, TypeError)):
        digest(value)


def test_any_text_has_a_digest() -> None:
    assert len(digest("a file name that is not UTF-8: \udcff")) == 64


def test_a_seed_has_63_bits_and_follows_from_the_run_and_every_input() -> None:
    seeds = {item_seed(run, INPUTS) for run in range(200)}
    assert len(seeds) == 200
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert max(seeds) > 2**61  # the upper bits are used
    first = item_seed(42, INPUTS)
    assert first == item_seed(42, dict(reversed(INPUTS.items())))
    assert first == int(digest({"seed": 42, "inputs": INPUTS}), 16) >> 193
    for change in ({"image": "c" * 64}, {"audio": "c" * 64}, {"pose": "c" * 64}):
        assert item_seed(42, {**INPUTS, **change}) != first
    assert item_seed(42, {"image": INPUTS["audio"], "audio": INPUTS["image"]}) != first


def test_cache_keys_are_names_by_stage_and_facts() -> None:
    key = cache_key("crop", {"input": "a"})
    name = digest({"input": "a"})
    assert key == f"cache/crop/{name[:2]}/{name}.npz"
    assert len({key, cache_key("features", {"input": "a"}), cache_key("crop", {"input": "b"})}) == 3


def test_model_facts_are_what_shapes_the_networks_output() -> None:
    info = TalkerInfo("imtalker-tiny", 1, 64, 25, "random", {"renderer": "a" * 64})
    facts = digest(model_facts(info, RunSettings()))
    assert facts == digest(model_facts(info, RunSettings(seed=7, crop=False)))
    others = [
        digest(model_facts(info, RunSettings(precision="bfloat16"))),
        digest(model_facts(TalkerInfo("imtalker", 1, 64, 25, "random", info.weights_sha256), RunSettings())),
        digest(model_facts(TalkerInfo("imtalker-tiny", 2, 64, 25, "random", info.weights_sha256), RunSettings())),
        digest(model_facts(TalkerInfo("imtalker-tiny", 1, 64, 25, "random", {"renderer": "b" * 64}), RunSettings())),
    ]
    assert len({facts, *others}) == 5
