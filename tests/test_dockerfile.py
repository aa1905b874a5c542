"""The image: built of what there is, as the versions were tested, and not as root."""

from __future__ import annotations

import json
import shlex
import tomllib
from pathlib import Path

import pytest
import yaml

from jobs.kuberay import RAY_VERSION
from pipeline.machines.resources import PATIENT_THREADS

ROOT = Path(__file__).parent.parent


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions, continued lines joined."""
    lines = (ROOT / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines) if word.isupper()]


def values(name: str) -> list[str]:
    return [rest for word, rest in instructions() if word == name]


def copied() -> list[str]:
    """Sources of every COPY."""
    found = []
    for rest in values("COPY"):
        *sources, _ = (word for word in shlex.split(rest) if not word.startswith("--"))
        found += sources
    return found


@pytest.mark.parametrize("source", copied())
def test_what_is_copied_is_there_and_let_through(source: str) -> None:
    assert (ROOT / source).exists()
    rules = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert f"!{source}" in rules, f".dockerignore keeps {source} out"


def test_nothing_is_let_through_that_is_not_copied() -> None:
    rules = (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    assert rules[rules.index("*") :].count("*") == 1
    assert {rule[1:] for rule in rules if rule.startswith("!")} == set(copied())


def test_every_package_of_the_project_is_in_it() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    packages = {pattern.rstrip("*") for pattern in project["tool"]["setuptools"]["packages"]["find"]["include"]}
    modules = {f"{module}.py" for module in project["tool"]["setuptools"]["py-modules"]}
    named = {project["project"]["readme"], *project["project"]["license-files"]}
    assert packages | modules | named | {"pyproject.toml", "constraints.txt"} == set(copied())


def test_the_image_is_the_clusters_own() -> None:
    cluster = yaml.safe_load((ROOT / "ray_cluster.yaml").read_text(encoding="utf-8"))
    assert values("FROM") == [cluster["docker"]["image"]] == [f"rayproject/ray:{RAY_VERSION}-py311-gpu"]


def test_every_installation_keeps_to_the_tested_versions() -> None:
    installs = [rest for rest in values("RUN") if "pip install" in rest]
    assert installs
    assert all("--constraint constraints.txt" in rest for rest in installs)


def test_the_program_runs_as_rays_user() -> None:
    assert values("USER")[-1] == "ray"
    assert json.loads(values("ENTRYPOINT")[-1]) == ["imtalker"]
    environment = dict(pair.split("=", 1) for rest in values("ENV") for pair in rest.split())
    assert environment["RAY_USAGE_STATS_ENABLED"] == "0"
    assert environment | PATIENT_THREADS == environment
