"""The RayJob of a job file: what Kubernetes, KubeRay and Ray's autoscaler accept, and nothing secret in it."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator, ValidationError
from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr
from typer.testing import CliRunner

import cli
from jobs.kuberay import RAY_VERSION, rayjob, rayjob_yaml
from jobs.schema import Job, load_job, parse_job
from pipeline.errors import CannotRun

ROOT = Path(__file__).parents[2]
SCHEMA = json.loads((ROOT / "tests/data/kuberay/rayjob.schema.json").read_text(encoding="utf-8"))
IMAGE = "registry.example/imtalker:0.1.0"


def job(**changes: Any) -> Job:
    document = {"manifest": "s3://b/m.parquet", "output": "s3://b/out", "kubernetes": {"image": IMAGE}}
    return parse_job(document | changes, "test")


def kubernetes(**options: Any) -> Job:
    return job(kubernetes={"image": IMAGE, **options})


def spec(made: Job) -> dict[str, Any]:
    config, resource = rayjob(made)
    Draft202012Validator(SCHEMA).validate(resource)
    assert config["metadata"] == resource["metadata"]
    return resource["spec"]


def pods(made: Job) -> list[dict[str, Any]]:
    cluster = spec(made)["rayClusterSpec"]
    return [group["template"]["spec"] for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"])]


def test_the_committed_example_is_what_the_command_writes() -> None:
    result = CliRunner().invoke(cli.app, ["job", "kuberay", str(ROOT / "jobs" / "dubbing.yaml")])
    assert result.exit_code == 0, result.output
    assert result.stdout == (ROOT / "jobs" / "rayjob.yaml").read_text(encoding="utf-8")


def test_the_manifest_goes_to_a_file(tmp_path: Path) -> None:
    arguments = ["job", "kuberay", str(ROOT / "jobs" / "dubbing.yaml"), "--output"]
    assert CliRunner().invoke(cli.app, [*arguments, str(tmp_path / "rayjob.yaml")]).stdout == ""
    assert (tmp_path / "rayjob.yaml").read_bytes() == (ROOT / "jobs" / "rayjob.yaml").read_bytes()
    failed = CliRunner().invoke(cli.app, [*arguments, str(tmp_path / "absent" / "rayjob.yaml")])
    assert isinstance(failed.exception, CannotRun)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"workers": {"gpus": 0, "start": 2, "fewest": 0}, "auth": "disabled", "deadline_seconds": 3600},
        {
            "namespace": "studio",
            "service_account": "imtalker",
            "pull_secrets": ["registry"],
            "secrets": {"AWS_ACCESS_KEY_ID": "s3/id", "AWS_SECRET_ACCESS_KEY": "s3/secret"},
            "weights_claim": "models",
            "workers": {
                "node_selector": {"cloud.google.com/gke-spot": "true"},
                "tolerations": [{"key": "spot", "operator": "Equal", "value": "true", "effect": "NoSchedule"}],
            },
        },
    ],
)
def test_every_manifest_has_only_known_fields(options: dict[str, Any]) -> None:
    assert spec(kubernetes(**options))["shutdownAfterJobFinishes"] is True


@pytest.mark.parametrize(
    ("place", "key", "value"),
    [
        ((), "shutdownAfterJobFinish", True),
        (("rayClusterSpec",), "rayVersion", 2.6),
        (("rayClusterSpec", "authOptions"), "mode", "password"),
        (("rayClusterSpec", "workerGroupSpecs", 0), "maxReplicas", "4"),
        (("rayClusterSpec", "headGroupSpec", "template", "spec", "containers", 0), "volumeMount", []),
        (("rayClusterSpec", "headGroupSpec", "rayStartParams"), "num-cpus", 0),
    ],
)
def test_the_schema_refuses_what_the_cluster_would(place: tuple[Any, ...], key: str, value: Any) -> None:
    _, resource = deepcopy(rayjob(job()))
    inner = resource["spec"]
    for step in place:
        inner = inner[step]
    inner[key] = value
    with pytest.raises(ValidationError):
        Draft202012Validator(SCHEMA).validate(resource)


def test_rays_autoscaler_reads_what_each_pod_has() -> None:
    made = kubernetes(workers={"gpus": 2, "cpus": 16, "memory": "64Gi", "most": 6, "fewest": 2}, idle_seconds=120)
    cluster = {"metadata": {"name": "c", "namespace": "n"}, "spec": spec(made)["rayClusterSpec"]}
    derived = _derive_autoscaling_config_from_ray_cr(cluster)
    workers = derived["available_node_types"]["workers"]
    assert (workers["min_workers"], workers["max_workers"]) == (2, 6)
    assert workers["resources"] == {"CPU": 16, "GPU": 2, "memory": 64 * 2**30}
    assert derived["idle_timeout_minutes"] == 2
    head = derived["available_node_types"][derived["head_node_type"]]
    assert (head["resources"]["CPU"], head["resources"]["GPU"]) == (0, 0)


def test_the_job_file_arrives_without_its_cluster() -> None:
    given = load_job(ROOT / "jobs" / "dubbing.yaml")
    config, resource = rayjob(given)
    (arrived,) = (parse_job(yaml.safe_load(text), name) for name, text in config["data"].items())
    closed = given.settings.limits.model_copy(update={"local_files": False, "private_addresses": False})
    assert arrived.settings == given.settings.model_copy(update={"limits": closed})
    assert (arrived.ray.address, arrived.kubernetes, arrived.ray.runtime_env.env_vars) == ("auto", None, {})
    (file,) = config["data"]
    assert resource["spec"]["entrypoint"] == f"python -m cli run --config /etc/imtalker/{file}"
    assert yaml.safe_load(resource["spec"]["runtimeEnvYAML"]) == {"env_vars": {"HF_HUB_OFFLINE": "1"}}
    head, worker = pods(given)
    mounts = {mount["name"]: mount["mountPath"] for mount in head["containers"][0]["volumeMounts"]}
    assert mounts["job"] == "/etc/imtalker"
    assert {"name": "job", "configMap": {"name": config["metadata"]["name"]}} in head["volumes"]
    assert "job" not in {volume["name"] for volume in worker["volumes"]}


def test_secrets_are_named_and_never_told() -> None:
    for pod in pods(kubernetes(secrets={"AWS_SECRET_ACCESS_KEY": "studio/secret.key"})):
        for container in (*pod["containers"], *pod["initContainers"]):
            (found,) = [variable for variable in container["env"] if variable["name"] == "AWS_SECRET_ACCESS_KEY"]
            assert found == {
                "name": "AWS_SECRET_ACCESS_KEY",
                "valueFrom": {"secretKeyRef": {"name": "studio", "key": "secret.key"}},
            }


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"settings": {"storage_options": {"s3": {"secret": "hunter2"}}}}, "settings.storage_options.s3.secret"),
        ({"settings": {"storage_options": {"s3": {"key": "hunter2"}}}}, "settings.storage_options.s3.key"),
        (
            {"settings": {"storage_options": {"s3": {"client_kwargs": {"aws_session_token": "hunter2"}}}}},
            "settings.storage_options.s3.client_kwargs.aws_session_token",
        ),
        ({"ray": {"runtime_env": {"env_vars": {"HF_TOKEN": "hunter2"}}}}, "ray.runtime_env.env_vars.HF_TOKEN"),
        ({"manifest": "https://me:hunter2@host/m.parquet"}, "manifest"),
        ({"ray": {"runtime_env": {"pip": ["git+https://me:hunter2@host/x"]}}}, "ray.runtime_env.pip"),
    ],
)
def test_a_secret_in_the_job_file_is_refused_and_not_repeated(changes: dict[str, Any], where: str) -> None:
    with pytest.raises(CannotRun, match=r"kubernetes\.secrets") as raised:
        rayjob_yaml(job(**changes))
    assert str(raised.value).startswith(f"{where} looks like a secret")
    assert "hunter2" not in str(raised.value)


def test_a_value_where_the_name_of_a_secret_belongs_is_not_repeated() -> None:
    with pytest.raises(CannotRun) as raised:
        kubernetes(secrets={"AWS_SECRET_ACCESS_KEY": "hunter2"})
    assert "kubernetes.secrets.AWS_SECRET_ACCESS_KEY" in str(raised.value)
    assert "hunter2" not in str(raised.value)


def test_an_endpoint_is_no_secret() -> None:
    options = {"s3": {"endpoint_url": "https://storage.example", "client_kwargs": {"region_name": "x"}}}
    config, _ = rayjob(job(settings={"storage_options": options}))
    assert "storage.example" in "".join(config["data"].values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"kubernetes": None}, "kubernetes: required"),
        ({"manifest": "/data/m.parquet"}, "manifest: pods have no /data/m.parquet"),
        ({"output": "/data/out"}, "output: pods have no /data/out"),
        ({"ray": {"runtime_env": {"working_dir": "/src"}}}, "can't ship /src"),
    ],
)
def test_what_pods_would_not_find_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(CannotRun, match=message):
        rayjob(job(**changes))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"workers": {"most": 2, "start": 3}}, "expected fewest <= start <= most"),
        ({"worker": {}}, "kubernetes.worker: unknown key; did you mean 'workers'"),
        ({"workers": {"tolerations": [{"kye": "x"}]}}, "did you mean 'key'"),
        ({"head": {"memory": "lots"}}, "kubernetes.head.memory"),
    ],
)
def test_mistakes_are_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(CannotRun, match=message):
        kubernetes(**options)


def test_weights_are_pulled_before_ray_starts_or_come_from_a_claim() -> None:
    for pod in pods(job()):
        (pull,) = pod["initContainers"]
        assert pull["command"] == ["imtalker", "models", "pull", "imtalker"]
    for pod in pods(kubernetes(weights_claim="models")):
        assert "initContainers" not in pod
        assert {"name": "models", "persistentVolumeClaim": {"claimName": "models", "readOnly": True}} in pod["volumes"]
    for pod in pods(job(settings={"model": "imtalker-tiny"})):
        assert "initContainers" not in pod


@pytest.mark.parametrize("name", [None, "Dubbing: season 1!", "x" * 80, "-"])
def test_names_are_what_kubernetes_allows(name: str | None) -> None:
    _, resource = rayjob(job(name=name))
    Draft202012Validator(SCHEMA).validate(resource)


def test_the_manifest_names_the_ray_of_the_image() -> None:
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert f"ray=={RAY_VERSION}" in constraints
    assert spec(job())["rayClusterSpec"]["rayVersion"] == RAY_VERSION
