"""What an item used: closed forms, and shared files counted once."""

from __future__ import annotations

import pytest

from pipeline.accounting.item_usage import item_usage
from pipeline.accounting.usage import Share, Usage, shares, total, used
from pipeline.machines.resources import Pool, reserved
from pipeline.tasks import AssetTask, ItemTask

SHARES = {
    "crop": Share(cpus=1, gpus=0),
    "features": Share(cpus=2, gpus=0.5),
    "motion": Share(cpus=1, gpus=0.2),
    "render": Share(cpus=8, gpus=0.8, items_at_once=9),
}


def asset(kind: str, items: int, **seconds: float) -> AssetTask:
    return AssetTask.model_validate({"key": kind, "kind": kind, "uri": "u", "seconds": seconds, "items": items})


def item(portrait: AssetTask, audio: AssetTask, **more: object) -> ItemTask:
    return ItemTask.model_validate(
        {
            **{"key": "one", "index": 0, "mode": "audio", "cfg_scale": 3, "nfe": 10, "request": "", "shares": SHARES},
            **{"portrait": portrait, "audio": audio, "seconds": {"motion": 5.0, "render": 90.0}},
            **more,
        }
    )


def test_half_a_gpu_for_ten_seconds_is_five() -> None:
    assert used(10, Share(cpus=2, gpus=0.5)) == Usage(busy_s=10, cpu_s=20, gpu_s=5)


def test_an_actor_with_several_items_in_hand_spends_its_time_once() -> None:
    share = Share(cpus=8, gpus=0.8, items_at_once=9)
    assert used(90, share) == Usage(busy_s=90, cpu_s=80, gpu_s=8)
    assert used(90, share, device_s=20).gpu_s == 16
    assert used(90, Share(cpus=1, gpus=1), device_s=20).gpu_s == 90, "with one item in hand nobody else has the GPU"


def test_items_share_the_cost_of_a_file_and_together_bear_all_of_it() -> None:
    portrait, audio = asset("portrait", 4, crop=8.0, features=2.0), asset("audio", 2, features=6.0)
    usage = item_usage(item(portrait, audio, video={"render_s": 10.0}))
    assert usage == {
        "crop": Usage(busy_s=2, cpu_s=2),
        "features": Usage(busy_s=3.5, cpu_s=7, gpu_s=1.75),
        "motion": Usage(busy_s=5, cpu_s=5, gpu_s=1),
        "render": Usage(busy_s=90, cpu_s=80, gpu_s=8),
    }
    pairs = [(a, b) for a in (4, 4) for b in (2, 2)]
    crops = [item_usage(item(asset("portrait", p, crop=8.0), asset("audio", a)))["crop"] for p, a in pairs]
    assert total(crops).busy_s == 8


def test_an_item_without_shares_has_used_nothing_that_is_known() -> None:
    assert item_usage(item(asset("portrait", 1, crop=1.0), asset("audio", 1), shares={})) == {}


def test_reserved_is_what_the_larger_phase_takes() -> None:
    placement = {
        "crop": Pool(2, 1.0, 0.0, 1),
        "features": Pool(2, 2.0, 1.0, 2),
        "motion": Pool(1, 1.0, 0.2, 1),
        "render": Pool(2, 4.0, 0.8, 4, encoders=8),
    }
    assert reserved(placement) == (9.0, 2.0)
    assert shares(placement)["render"] == Share(cpus=4.0, gpus=0.8, items_at_once=9)


@pytest.mark.parametrize("seconds", [0.0, 1.5])
def test_usage_adds_up(seconds: float) -> None:
    one = Usage(busy_s=seconds, cpu_s=2, gpu_s=3)
    assert one + one == Usage(busy_s=2 * seconds, cpu_s=4, gpu_s=6)
    assert total([]) == Usage()
