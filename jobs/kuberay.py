"""A run as a KubeRay RayJob: a Ray cluster of pods that is made for the job and ends with it.

The manifest is for the custom resource ``ray.io/v1`` RayJob of KubeRay 1.5.1 or later (before, ``authOptions`` is
unknown). It holds the job file as a ConfigMap, so that ``kubectl apply`` is all that is needed.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from jobs.kubernetes import Kubernetes
from jobs.schema import Job
from jobs.submit import JOB_FILE, cluster_job, run_command
from manifests.uri import scheme
from pipeline.errors import CannotRun
from pipeline.weights import parts_of

RAY_VERSION = "2.60.0"
"""Of the image that the Dockerfile makes."""

_NAME_LENGTH = 47
"""KubeRay makes longer names of a RayJob's, which must stay within Kubernetes's 63 characters."""
_JOB_FOLDER = "/etc/imtalker"
_MODELS = "/models"
_USER = 1000
"""The user of Ray's images."""
_SECRETIVE = re.compile(r"(^|[_-])key$|secret|token|passw|credential|connection_string|private_?key", re.IGNORECASE)
_USER_INFO = re.compile(r"://[^/@\s]*:[^/@\s]+@")


def rayjob_yaml(job: Job) -> str:
    """The YAML of `rayjob`, with a word on where it comes from.

    Raises `CannotRun` as `rayjob` does.
    """
    head = "# Made of a job file by `imtalker job kuberay`: change that file, not this one.\n"
    return head + yaml.dump_all(rayjob(job), Dumper=_Dumper, sort_keys=False, width=120)


def rayjob(job: Job) -> list[dict[str, Any]]:
    """The objects to apply: the ConfigMap with the job file, and the RayJob that runs it.

    Raises:
        CannotRun: the job has no ``kubernetes``, names local files, ships a folder, or holds something that looks
            like a secret; all of them with what to do instead.
    """
    options = job.kubernetes
    if options is None:
        raise CannotRun("kubernetes: required for a RayJob, but absent; at least {image: REGISTRY/imtalker:TAG}")
    _check_reachable(job)
    _check_open(job)
    name = _name(job)
    place = {"namespace": options.namespace} if options.namespace else {}
    labels = {"app.kubernetes.io/name": "imtalker", "app.kubernetes.io/instance": name}
    metadata = {"name": name, **place, "labels": labels}
    deadline = {"activeDeadlineSeconds": options.deadline_seconds} if options.deadline_seconds else {}
    data = {JOB_FILE: cluster_job(job, complete=False)}
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
    spec = {
        "entrypoint": shlex.join(run_command(job, f"{_JOB_FOLDER}/{JOB_FILE}")),
        **_runtime_env(job),
        "submissionMode": "K8sJobMode",
        "shutdownAfterJobFinishes": True,
        "ttlSecondsAfterFinished": options.keep_seconds,
        **deadline,
        # A run in which items failed ends with exit code 3; doing it again at once would not help them.
        "backoffLimit": 0,
        "rayClusterSpec": {
            "rayVersion": RAY_VERSION,
            "authOptions": {"mode": options.auth},
            "enableInTreeAutoscaling": True,
            "autoscalerOptions": {"idleTimeoutSeconds": options.idle_seconds},
            "headGroupSpec": _head(job, options, name),
            "workerGroupSpecs": [_workers(job, options)],
        },
    }
    return [config, {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": metadata, "spec": spec}]


def _head(job: Job, options: Kubernetes, name: str) -> dict[str, Any]:
    container = {
        "name": "ray-head",
        "ports": _ports(gcs=6379, dashboard=8265, metrics=8080),
        "resources": _resources(options.head.cpus, options.head.memory),
    }
    volume = {"name": "job", "configMap": {"name": name}}
    mount = {"name": "job", "mountPath": _JOB_FOLDER, "readOnly": True}
    return {
        "rayStartParams": {"dashboard-host": "0.0.0.0", "num-cpus": "0", "num-gpus": "0"},  # noqa: S104  (in a pod)
        "template": _pod(job, options, container, [volume], [mount]),
    }


def _workers(job: Job, options: Kubernetes) -> dict[str, Any]:
    wish = options.workers
    container = {
        "name": "ray-worker",
        "ports": _ports(metrics=8080),
        "resources": _resources(wish.cpus, wish.memory, wish.gpus),
    }
    template = _pod(job, options, container, [], [])
    if wish.node_selector:
        template["spec"]["nodeSelector"] = wish.node_selector
    taints = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}] if wish.gpus else []
    taints += [taint.model_dump(exclude_none=True) for taint in wish.tolerations]
    if taints:
        template["spec"]["tolerations"] = taints
    return {
        "groupName": "workers",
        "replicas": wish.at_start,
        "minReplicas": wish.fewest,
        "maxReplicas": wish.most,
        "rayStartParams": {},
        "template": template,
    }


def _pod(
    job: Job, options: Kubernetes, container: dict[str, Any], volumes: list[Any], mounts: list[Any]
) -> dict[str, Any]:
    """A pod of one container, with the weights and a memory disk for Ray's object store."""
    secret = [(name, *key.split("/")) for name, key in options.secrets.items()]
    env = [
        {"name": "IMTALKER_MODELS", "value": _MODELS},
        {"name": "RAY_USAGE_STATS_ENABLED", "value": "0"},
        *({"name": n, "valueFrom": {"secretKeyRef": {"name": where, "key": key}}} for n, where, key in secret),
    ]
    pulls = options.weights_claim is None and any(
        p.name not in job.settings.weights for p in parts_of(job.settings.model)
    )
    claim = {"persistentVolumeClaim": {"claimName": options.weights_claim, "readOnly": True}}
    models = {"name": "models", **(claim if options.weights_claim else {"emptyDir": {}})}
    common = {
        "image": options.image,
        "env": env,
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    model_mount = {"name": "models", "mountPath": _MODELS}
    spec: dict[str, Any] = {
        # A node that ended is replaced by the autoscaler; a restarted container would come back as a stranger.
        "restartPolicy": "Never",
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "fsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    if options.service_account:
        spec["serviceAccountName"] = options.service_account
    if options.pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in options.pull_secrets]
    if pulls:
        pull = {"name": "pull-weights", "command": ["imtalker", "models", "pull", job.settings.model]}
        spec["initContainers"] = [pull | common | {"volumeMounts": [model_mount], "resources": _resources(1, "4Gi")}]
    spec["containers"] = [
        container | common | {"volumeMounts": [model_mount, {"name": "shm", "mountPath": "/dev/shm"}, *mounts]}  # noqa: S108
    ]
    spec["volumes"] = [models, {"name": "shm", "emptyDir": {"medium": "Memory"}}, *volumes]
    return {"spec": spec}


def _resources(cpus: int, memory: str, gpus: int = 0) -> dict[str, Any]:
    """Requests and limits are the same: Ray counts on what the limits say."""
    amounts = {"cpu": str(cpus), "memory": memory} | ({"nvidia.com/gpu": str(gpus)} if gpus else {})
    return {"requests": dict(amounts), "limits": dict(amounts)}


def _ports(**named: int) -> list[dict[str, Any]]:
    return [{"name": name, "containerPort": port} for name, port in named.items()]


def _runtime_env(job: Job) -> dict[str, str]:
    env = job.ray.runtime_env.model_dump(include={"pip", "env_vars"}, exclude_defaults=True)
    return {"runtimeEnvYAML": str(yaml.safe_dump(env, sort_keys=False))} if env else {}


def _name(job: Job) -> str:
    words = re.sub(r"[^a-z0-9]+", "-", f"imtalker-{job.name or ''}".lower()).strip("-")
    return words[:_NAME_LENGTH].strip("-")


def _check_reachable(job: Job) -> None:
    """Raises CannotRun for what the pods would not find."""
    for key, uri in (("manifest", job.manifest), ("output", job.output)):
        if scheme(uri) is None:
            raise CannotRun(f"{key}: pods have no {uri}; give a URI of an object store, as s3://bucket/...")
    if (folder := job.ray.runtime_env.working_dir) is not None:
        raise CannotRun(
            f"ray.runtime_env.working_dir: a RayJob can't ship {folder}; put the program into the image (Dockerfile)"
        )


def _check_open(job: Job) -> None:
    """Raises CannotRun for what looks like a secret: a ConfigMap is no place for it."""
    document = job.model_dump(mode="json", exclude={"kubernetes"})
    for path, value in _leaves(document):
        hidden = path.startswith(("settings.storage_options.", "ray.runtime_env.env_vars."))
        named = hidden and _SECRETIVE.search(path.rpartition(".")[2]) and value not in (None, "", False)
        if named or (isinstance(value, str) and _USER_INFO.search(value)):
            raise CannotRun(
                f"{path} looks like a secret and would stand in the manifest; keep it in a Kubernetes Secret and name "
                "that in kubernetes.secrets: {VARIABLE: SECRET/KEY}, or give the pods a role by "
                "kubernetes.service_account"
            )


def _leaves(document: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in document.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{name}.")
        elif isinstance(value, list):
            yield from ((f"{prefix}{name}", inner) for inner in value)
        else:
            yield f"{prefix}{name}", value


class _Dumper(yaml.SafeDumper):
    """Several lines of text as such, and nothing by reference."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)
