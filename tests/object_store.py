"""A store behind the S3 protocol on this machine: SeaweedFS, from its Python package."""

from __future__ import annotations

import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.fs as pafs

__all__ = ["BUCKET", "ObjectStore", "free_ports", "overwrite", "running_store"]

HOST, BUCKET, PATIENCE_S = "127.0.0.1", "rankmill", 60
WEED = Path(sys.executable).with_name("weed")
_PORTS = ("master", "volume", "filer", "s3")


def free_ports(count: int) -> list[int]:
    """Ports of the loopback address that nobody listens on now, all different."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind((HOST, 0))
        return [each.getsockname()[1] for each in sockets]


@dataclass
class ObjectStore:
    """A server with one bucket, its data in ``folder``; made by :func:`running_store`."""

    folder: Path
    ports: list[int] = field(default_factory=lambda: free_ports(2 * len(_PORTS)))
    key: str = "rankmill-tests"
    secret: str = field(default_factory=lambda: secrets.token_hex(16))
    process: subprocess.Popen[bytes] | None = None

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which jobs find it."""
        return {
            "AWS_ENDPOINT_URL": f"http://{HOST}:{self.ports[-1]}",
            "AWS_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": self.secret,
        }

    @property
    def filesystem(self) -> pafs.S3FileSystem:
        """A client of its own, whatever the environment of the tests says."""
        return pafs.S3FileSystem(
            endpoint_override=self.environment["AWS_ENDPOINT_URL"], region="us-east-1",
            access_key=self.key, secret_key=self.secret, allow_bucket_creation=True,
        )  # fmt: skip

    def start(self) -> None:
        """Start the server, again on the same ports and data after a stop, and wait for it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        credentials = [{"accessKey": self.key, "secretKey": self.secret}]
        identity = {"name": "tests", "credentials": credentials, "actions": actions}
        config = self.folder / "s3.json"
        config.write_text(json.dumps({"identities": [identity]}))
        options = {"dir": self.folder, "ip": HOST, "ip.bind": HOST, "s3.config": config,
                   "master.telemetry": "false", "master.volumeSizeLimitMB": 64,
                   "volume.max": 100, "s3.port.iceberg": 0, "s3.port.lance": 0,
                   "volume.preStopSeconds": 0}  # fmt: skip
        for name, pair in zip(
            _PORTS, zip(self.ports[4:], self.ports[:4], strict=True), strict=True
        ):
            options |= {f"{name}.port": pair[0], f"{name}.port.grpc": pair[1]}
            if name in ("filer", "s3"):
                options[f"{name}.localSocket"] = self.folder / f"{name}.sock"
        given = (f"-{name}={value}" for name, value in options.items())
        command = [str(WEED), "-logtostderr=true", "server", "-filer", "-s3", *given]
        with (self.folder / "weed.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env={**os.environ, "HOME": str(self.folder)}
            )
        self._wait()
        self.filesystem.create_dir(BUCKET)

    def _wait(self) -> None:
        assert self.process is not None
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            assert self.process.poll() is None, (self.folder / "weed.log").read_text()[-3000:]
            try:
                urllib.request.urlopen(f"http://{HOST}:{self.ports[-1]}/healthz", timeout=2).close()
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.2)
            else:
                return
        raise AssertionError((self.folder / "weed.log").read_text()[-3000:])

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End the server, and wait for its end."""
        if self.process is not None:
            self.process.send_signal(how)
            self.process.wait(30)
            self.process = None
        for name, port in zip(_PORTS, self.ports[:4], strict=True):  # it leaves them behind
            Path(f"/tmp/seaweedfs-{name}-grpc-{port}.sock").unlink(missing_ok=True)  # noqa: S108


@contextmanager
def running_store(folder: Path) -> Iterator[ObjectStore]:
    """A running store with an empty bucket ``BUCKET``, ended on leaving."""
    store = ObjectStore(folder)
    try:
        store.start()
        yield store
    finally:
        store.stop()


def overwrite(path: str, content: bytes) -> None:
    """Put ``content`` in the place of a file, on this machine or in a bucket."""
    filesystem, inside = pafs.FileSystem.from_uri(path if "://" in path else f"file://{path}")
    with filesystem.open_output_stream(inside) as stream:
        stream.write(content)
