"""What a run needs on Kubernetes: the image, the pods, and the names of secrets."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from pipeline.config import Settings

Quantity = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]*(\.[0-9]+)?(Ki|Mi|Gi|Ti|k|M|G|T)?$")]
"""An amount of memory as Kubernetes writes it."""
ObjectName = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)]
Variable = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")]
SecretKey = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[-._A-Za-z0-9]+$", max_length=507)
]
"""A key of a Secret: ``SECRET/KEY``."""


class Toleration(Settings):
    """A taint that the workers put up with."""

    key: str
    operator: Literal["Exists", "Equal"] = "Exists"
    value: str | None = None
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None


class HeadPod(Settings):
    """The pod that plans, hands out work and writes the table; it renders nothing."""

    cpus: int = Field(2, ge=1)
    memory: Quantity = "8Gi"


class WorkerPods(Settings):
    """The pods that do the work."""

    gpus: int = Field(1, ge=0, description="of each pod")
    cpus: int = Field(8, ge=1, description="of each pod")
    memory: Quantity = "32Gi"
    most: int = Field(4, ge=1, description="pods at most")
    fewest: int = Field(1, ge=0, description="pods that are kept when there is nothing to do")
    start: int | None = Field(None, ge=1, description="pods that the run waits for and uses; default: most")
    node_selector: dict[str, str] = Field(default_factory=dict, description="labels of the nodes")
    tolerations: list[Toleration] = Field(default_factory=list, description="taints of the nodes")

    @model_validator(mode="after")
    def _in_order(self) -> WorkerPods:
        if not self.fewest <= self.at_start <= self.most:
            raise ValueError(
                f"workers: expected fewest <= start <= most, found {self.fewest}, {self.at_start} and {self.most}"
            )
        return self

    @property
    def at_start(self) -> int:
        return self.most if self.start is None else self.start


class Kubernetes(Settings):
    """Everything about a KubeRay RayJob that the rest of the job file does not say."""

    image: str = Field(min_length=1, description="image with the program in it, as the Dockerfile makes it")
    namespace: ObjectName | None = Field(None, description="default: kubectl's own")
    service_account: ObjectName | None = Field(None, description="of the pods, for a cloud's roles")
    pull_secrets: list[ObjectName] = Field(default_factory=list, description="Secrets to pull the image with")
    secrets: dict[Variable, SecretKey] = Field(
        default_factory=dict, description="environment variables from Secrets: {AWS_ACCESS_KEY_ID: SECRET/KEY}"
    )
    weights_claim: ObjectName | None = Field(
        None, description="volume claim that holds the model store; default: every pod pulls the weights"
    )
    head: HeadPod = HeadPod()
    workers: WorkerPods = WorkerPods()
    idle_seconds: int = Field(300, ge=1, description="workers that were idle for so long are given back")
    keep_seconds: int = Field(600, ge=0, description="the cluster's life after the run's end, for a look at its logs")
    deadline_seconds: int | None = Field(None, ge=1, description="the run is stopped after so long")
    auth: Literal["token", "disabled"] = Field("token", description="Ray's own authentication")
