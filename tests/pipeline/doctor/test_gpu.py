"""GPUs: which ones torch has kernels for, and what is said where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipeline.config import RunSettings
from pipeline.doctor import gpu
from pipeline.doctor.finding import Finding, Request

# As torch 2.13 for CUDA 12.9 says of itself.
BUILT = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]
PROC = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.124.06  Wed Feb 26 02:05:27 UTC 2025\nGCC version: 13\n"


@pytest.mark.parametrize(
    ("capability", "built", "runs"),
    [
        ((8, 9), BUILT, True),  # L4 runs binaries for 8.6
        ((9, 0), BUILT, True),
        ((7, 0), BUILT, False),  # V100
        ((6, 1), BUILT, False),
        ((12, 1), BUILT, True),
        ((11, 0), BUILT, False),
        ((11, 0), [*BUILT, "compute_100"], True),  # translated by the driver
        ((9, 0), ["sm_90a"], True),
        ((10, 3), ["sm_100a"], False),  # an "a" is for exactly that one
        ((8, 0), ["sm_86"], False),
    ],
)
def test_which_gpus_the_kernels_run_on(capability: tuple[int, int], built: list[str], runs: bool) -> None:
    assert gpu.supported(capability, built) is runs


def test_the_drivers_version_is_read(tmp_path: Path) -> None:
    (tmp_path / "version").write_text(PROC)
    assert gpu.driver_version(tmp_path / "version") == "570.124.06"
    assert gpu.driver_version(tmp_path / "absent") is None


def none(driver: str | None, request: Request | None = None, cuda: str | None = "12.9", *said: str) -> Finding:
    return gpu._none(request or Request(), driver, torch.__version__, cuda, said)


def test_a_machine_without_gpu_is_worth_a_note_and_fails_where_one_is_wanted() -> None:
    assert none(None).status == "note"
    assert none(None, Request(settings=RunSettings(device="cuda"))).status == "fail"


def test_a_gpu_that_torch_does_not_see_fails_and_says_why() -> None:
    assert "without CUDA" in none("570.1", None, None).message
    assert (
        "driver on your system is too old"
        in none("450.1", None, "12.9", "The NVIDIA driver on your system is too old").message
    )
    offered = none(None, Request(on_node=True, gpus=2.0))
    assert (offered.status, "Ray offers 2 GPUs" in offered.message) == ("fail", True)


def test_a_run_on_cpus_asks_for_no_gpu() -> None:
    (found,) = gpu.check(Request(settings=RunSettings(device="cpu")))
    assert found.status == "ok"
