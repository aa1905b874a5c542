"""`ray up` accepts the cluster file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[2]


@pytest.fixture
def cluster() -> dict[str, Any]:
    return yaml.safe_load((ROOT / "ray_cluster.yaml").read_text(encoding="utf-8"))


def test_ray_accepts_the_cluster_file(cluster: dict[str, Any]) -> None:
    prepared = prepare_config(cluster)
    validate_config(prepared)
    assert prepared["available_node_types"]["gpu-spot"]["max_workers"] == 8
    assert prepared["available_node_types"]["head"]["max_workers"] == 0


def test_ray_refuses_a_misspelt_key(cluster: dict[str, Any]) -> None:
    with pytest.raises(Exception, match="max_worker"):
        validate_config(prepare_config({**cluster, "max_worker": 1}))


def test_workers_are_spot_machines_and_the_head_is_not(cluster: dict[str, Any]) -> None:
    head, worker = (cluster["available_node_types"][name]["node_config"] for name in ("head", "gpu-spot"))
    assert "InstanceMarketOptions" not in head
    assert worker["InstanceMarketOptions"]["MarketType"] == "spot"
    assert worker["InstanceType"] != head["InstanceType"]
    assert worker["ImageId"] == head["ImageId"]


def test_the_image_has_the_ray_version_that_was_tested(cluster: dict[str, Any]) -> None:
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    (version,) = [line.removeprefix("ray==") for line in constraints if line.startswith("ray==")]
    assert cluster["docker"]["image"] == f"rayproject/ray:{version}-py311-gpu"
    assert any("constraints.txt" in command for command in cluster["setup_commands"])
