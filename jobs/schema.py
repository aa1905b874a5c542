"""Job files: everything a run needs, in one YAML file with checked keys."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import Field

from jobs.kubernetes import Kubernetes
from manifests.uri import absolute, resolve
from pipeline.accounting.price import Price
from pipeline.config import RunSettings, Settings
from pipeline.document import parse_document, read_document
from pipeline.errors import CannotRun, Retry

_SECRET = ("storage_options", "env_vars", "secrets")


class RuntimeEnv(Settings):
    """What a submitted job needs on the cluster's machines besides what is installed there."""

    pip: list[str] = Field(default_factory=list, description="packages, as pip takes them")
    working_dir: str | None = Field(None, description="local folder that is shipped; the job runs in it")
    excludes: list[str] = Field(default_factory=list, description="patterns (.gitignore) left out of working_dir")
    env_vars: dict[str, str] = Field(default_factory=dict, description="shown in Ray's dashboard: no secrets")


class RayOptions(Settings):
    """Where the run executes."""

    address: str | None = Field(None, description="cluster that a run joins; default: one of its own, here")
    dashboard: str | None = Field(None, description="URL of the cluster's Jobs API, for submit")
    python: str = Field("python", min_length=1, description="the cluster's Python, for submit")
    runtime_env: RuntimeEnv = RuntimeEnv()


class Job(Settings):
    """One job: what to make, where to put it, how, and on which cluster."""

    name: str | None = Field(None, description="shown in Ray's list of jobs")
    manifest: str = Field(min_length=1, description="URI of the manifest")
    output: str = Field(min_length=1, description="URI of the output folder")
    limit: int | None = Field(None, ge=1, description="only the first rows of the manifest")
    retry: Retry | None = Field(None, description="failed items to attempt again: failed for all, or a kind of error")
    settings: RunSettings = RunSettings()
    ray: RayOptions = RayOptions()
    price: Price | None = Field(None, description="what an hour of a GPU and of a CPU costs")
    kubernetes: Kubernetes | None = Field(None, description="pods of a KubeRay RayJob")

    def with_overrides(self, flags: Mapping[str, Any]) -> Job:
        """This job with command-line flags laid over it; flags that are None were not given.

        A flag is named like a key of the job (``output``), like one of its settings (``cfg_scale``), or by the dotted
        path of a deeper one (``video.crf``, ``ray.address``). Mappings (``weights``) are laid over key by key.

        Raises:
            CannotRun: an unknown name or a value that isn't allowed.
        """
        document = self.model_dump()
        for name, value in flags.items():
            if value is not None:
                _lay(document, _path(name), value)
        return parse_job(document, "command line")

    def absolute(self, base: str | None = None) -> Job:
        """This job with relative local paths taken from the folder ``base`` (default: the working folder)."""

        def located(uri: str) -> str:
            return resolve(uri, base) if base else absolute(uri)

        env = self.ray.runtime_env
        if env.working_dir is not None:
            env = env.model_copy(update={"working_dir": located(env.working_dir)})
        weights = {name: located(path) for name, path in self.settings.weights.items()}
        signing = self.settings.signing
        if signing.certificate is not None and signing.key is not None:
            files = {"certificate": located(signing.certificate), "key": located(signing.key)}
            signing = signing.model_copy(update=files)
        return self.model_copy(
            update={
                "manifest": located(self.manifest),
                "output": located(self.output),
                "settings": self.settings.model_copy(update={"weights": weights, "signing": signing}),
                "ray": self.ray.model_copy(update={"runtime_env": env}),
            }
        )

    def public(self) -> dict[str, Any]:
        """The job as plain values that may be shown: storage options and environment values are hidden."""
        return _hidden(self.model_dump(mode="json"))


def load_job(path: str | Path) -> Job:
    """Read a YAML job file. Relative local paths in it stand in the job file's own folder.

    Raises:
        CannotRun: the file is missing, isn't YAML, or has unknown keys or values that aren't allowed; the text names
            every one of them.
    """
    file = Path(path).absolute()
    return parse_job(read_document(file), str(file)).absolute(str(file.parent))


def parse_job(document: Mapping[str, Any], source: str) -> Job:
    """Check plain values as a job; ``source`` says in errors where they come from. Raises `CannotRun`."""
    return parse_document(Job, document, source, secret=_SECRET)


def _path(name: str) -> list[str]:
    first, *_ = path = name.split(".")
    if first in RunSettings.model_fields:
        return ["settings", *path]
    if first in Job.model_fields:
        return path
    close = get_close_matches(first, [*Job.model_fields, *RunSettings.model_fields], n=1)
    raise CannotRun(f"command line: unknown setting {name!r}" + (f"; did you mean {close[0]!r}?" if close else ""))


def _lay(document: dict[str, Any], path: list[str], value: Any) -> None:
    *folders, last = path
    for folder in folders:
        document = document.setdefault(folder, {})
        if not isinstance(document, dict):
            raise CannotRun(f"command line: {'.'.join(path)}: {folder} is a single value and has no parts")
    if isinstance(value, Mapping) and isinstance(document.get(last), dict):
        for name, inner in value.items():
            _lay(document, [last, name], inner)
    else:
        document[last] = value


def _hidden(document: dict[str, Any]) -> dict[str, Any]:
    return {
        name: "***" if name in _SECRET and value else _hidden(value) if isinstance(value, dict) else value
        for name, value in document.items()
    }
