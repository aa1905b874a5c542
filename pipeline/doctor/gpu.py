"""GPUs: the driver, what torch sees, and whether the installed torch has kernels for it."""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.doctor.finding import Finding, Request, fail, note, ok

_DRIVER = Path("/proc/driver/nvidia/version")
_AMPERE = (8, 0)


def driver_version(file: Path = _DRIVER) -> str | None:
    """Version of NVIDIA's kernel driver; None where there is none."""
    try:
        found = re.search(r"\s(\d+\.\d+(?:\.\d+)?)\s", file.read_text())
    except OSError:
        return None
    return found.group(1) if found else "unknown"


def check(request: Request) -> Iterator[Finding]:
    import torch

    if request.settings.device == "cpu":
        yield ok("not needed: device is cpu")
        return
    driver = driver_version()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if not count:
        yield _none(request, driver, torch.__version__, torch.version.cuda, [str(w.message) for w in said])
        return
    if request.gpus is not None and count < request.gpus:
        yield fail(
            f"Ray offers {request.gpus:g} GPUs here, but torch sees {count}",
            "start Ray with --num-gpus and CUDA_VISIBLE_DEVICES that are right",
        )
    for index in range(count):
        yield _device(index, driver)
    if importlib.util.find_spec("triton") and not (
        os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")
    ):
        yield fail("Triton, which builds kernels for GPUs, finds no C compiler", "apt-get install gcc, or set CC")


def _none(request: Request, driver: str | None, torch: str, cuda: str | None, said: Sequence[str]) -> Finding:
    """Torch sees no GPU: that is what there is, or something is in the way."""
    wanted = request.settings.device == "cuda"
    if driver is None and not request.gpus:
        if wanted:
            return fail("device is cuda, but there is no NVIDIA driver", "use device: auto or cpu, or another machine")
        return note("no NVIDIA driver: the networks run on CPUs", "at full size a GPU is many times faster")
    where = f"driver {driver}" if driver else f"Ray offers {request.gpus:g} GPUs here"
    if cuda is None:
        return fail(
            f"{where}, but torch {torch} is built without CUDA", "install the torch that the driver's CUDA can run"
        )
    reason = f": {' '.join(said[0].split())}" if said else ""
    return fail(
        f"{where}, but torch {torch} (CUDA {cuda}) sees no GPU{reason}",
        "check CUDA_VISIBLE_DEVICES, nvidia-smi, and that the driver is new enough for that CUDA",
    )


def _device(index: int, driver: str | None) -> Finding:
    import torch

    name, capability = torch.cuda.get_device_name(index), torch.cuda.get_device_capability(index)
    what = f"{index}: {name}, compute capability {capability[0]}.{capability[1]}, driver {driver}"
    facts = {"index": index, "name": name, "capability": list(capability), "driver": driver}
    if not supported(capability, torch.cuda.get_arch_list()):
        return fail(
            f"{what}: torch {torch.__version__} has no kernels for it ({', '.join(torch.cuda.get_arch_list())})",
            "install a torch that supports this GPU, or use another one",
            **facts,
        )
    try:
        total = torch.ones(256, device=f"cuda:{index}").sum().item()
        free, size = torch.cuda.mem_get_info(index)
    except RuntimeError as exc:
        return fail(f"{what}: a first sum failed: {str(exc).splitlines()[0]}", "see what nvidia-smi says", **facts)
    if total != 256:
        return fail(f"{what}: 256 ones sum up to {total:g}", "take this GPU out of use", **facts)
    what += f", {free / 2**30:.1f} of {size / 2**30:.1f} GiB free"
    if free < size / 2:
        return note(what, "other programs hold more than half of its memory", **facts)
    if capability < _AMPERE:
        return note(what, "it has no bfloat16: float16 is used in its place", **facts)
    return ok(what, **facts)


def supported(capability: tuple[int, int], built: Sequence[str]) -> bool:
    """Whether torch's kernels run on a GPU: binaries of the same major version, or PTX that the driver translates.

    ``built`` is what ``torch.cuda.get_arch_list()`` says: ``sm_86``, ``sm_90a`` (for 9.0 alone), ``compute_120``.
    """
    for entry in built:
        kind, _, digits = entry.partition("_")
        number = re.match(r"\d+", digits)
        if number is None:
            continue
        major, minor = divmod(int(number.group()), 10)
        if (
            kind == "sm"
            and major == capability[0]
            and (minor == capability[1] or (minor < capability[1] and digits.isdecimal()))
        ):
            return True
        if kind == "compute" and (major, minor) <= capability:
            return True
    return False
