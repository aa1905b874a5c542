"""Python and the packages: versions against the project's own floors, and whether they import."""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from pipeline.doctor.finding import Finding, Request, fail, ok

_PROJECT = "imtalker"
_MODULES = {
    "c2pa-python": "c2pa",
    "dlib-bin": "dlib",
    "pillow": "PIL",
    "pyyaml": "yaml",
    "vl-convert-python": "vl_convert",
    "face-alignment": "face_alignment",
}
"""What a distribution is imported as, where that is another name."""


def check_python(request: Request) -> Iterator[Finding]:
    wanted, _ = _declared()
    found = platform.python_version()
    where = f"Python {found} on {platform.node()} ({platform.machine()}, {platform.system()})"
    if SpecifierSet(wanted).contains(found, prereleases=True):
        yield ok(where, python=found)
    else:
        yield fail(f"{where}; expected {wanted}", "make the environment with another Python", python=found)


def check_packages(request: Request) -> Iterator[Finding]:
    """Every package that the project asks for, and those of the extras that the run demands."""
    settings = request.settings
    demanded = {"s3fd": settings.detector == "s3fd", "landmarks": settings.landmarks == "always"}
    extras = [name for name, is_wanted in demanded.items() if is_wanted]
    _, texts = _declared()
    requirements = [r for r in map(Requirement, texts) if _applies(r, extras)]
    yield from compare(requirements)


def compare(requirements: Iterable[Requirement]) -> Iterator[Finding]:
    """A finding for each package that is missing, too old, too new or broken; one for all others together."""
    versions: dict[str, str] = {}
    for requirement in requirements:
        name = requirement.name
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield fail(f"{name} is not installed; expected {requirement}", f'pip install "{_plain(requirement)}"')
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            yield fail(f"{name} is {version}; expected {requirement.specifier}", f'pip install "{_plain(requirement)}"')
            continue
        module = _MODULES.get(name, name.replace("-", "_"))
        try:
            importlib.import_module(module)
        except (ImportError, OSError) as exc:
            reason = " ".join(str(exc).split())
            yield fail(f"{name} {version} can't be imported: {reason}", "install what it lacks, or the package anew")
            continue
        versions[name] = version
    if versions:
        shown = ", ".join(f"{name} {versions[name]}" for name in ("torch", "ray", "av") if name in versions)
        yield ok(f"{len(versions)} at or above their floors, and import{f' ({shown})' if shown else ''}", **versions)


def _declared() -> tuple[str, list[str]]:
    """The range of Python versions and the requirements, from the source tree or the installed package."""
    project = Path(__file__).parent.parent.parent / "pyproject.toml"
    if project.is_file():
        table = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
        optional = [
            f"{text}{' and' if ';' in text else ';'} extra == '{extra}'"
            for extra, texts in table.get("optional-dependencies", {}).items()
            for text in texts
        ]
        return table["requires-python"], [*table["dependencies"], *optional]
    installed = importlib.metadata.metadata(_PROJECT)
    return installed["Requires-Python"], importlib.metadata.requires(_PROJECT) or []


def _applies(requirement: Requirement, extras: list[str]) -> bool:
    """Whether this platform, and this run, needs it."""
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in ("", *extras))


def _plain(requirement: Requirement) -> str:
    return f"{requirement.name}{requirement.specifier}"
