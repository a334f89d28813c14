"""Starts MLflow and Airflow's three processes, and waits until they are healthy."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import requests

from local.airflow_api import AirflowApi
from local.processes import ProcessFile, spawn
from local.settings import database_uri
from local.stack import HOST, LocalError, Ports, Stack

__all__ = ["Services", "last_lines"]

AIRFLOW_PARTS = {
    "airflow-api-server": ["api-server"],
    # Without the flag the scheduler serves task logs on every address of the machine.
    "airflow-scheduler": ["scheduler", "--skip-serve-logs"],
    "airflow-dag-processor": ["dag-processor"],
}
KEPT_LOG_BYTES = 5 * 2**20


def last_lines(path: Path, count: int = 20) -> str:
    """The end of a log, indented; a word where there is none."""
    if not path.exists():
        return "    (no log)"
    lines = path.read_text(errors="replace").splitlines()[-count:]
    return "\n".join(f"    {line}" for line in lines) or "    (the log is empty)"


class Services:
    """The running services of one stack, by name."""

    def __init__(self, stack: Stack, ports: Ports, file: ProcessFile) -> None:
        self.stack = stack
        self.ports = ports
        self.file = file
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.airflow = AirflowApi(f"http://{HOST}:{ports.airflow}")
        self.mlflow_address = f"http://{HOST}:{ports.mlflow}"

    def log(self, name: str) -> Path:
        """The log of a service, begun anew when it has grown large."""
        path = self.stack.logs / f"{name}.log"
        if path.exists() and path.stat().st_size > KEPT_LOG_BYTES and name not in self.running:
            path.replace(path.with_suffix(".log.1"))
        return path

    def start(self, name: str, command: list[str], env: Mapping[str, str]) -> None:
        """Start one service of the environment's commands."""
        self.running[name] = spawn(
            name,
            [str(self.stack.bin / command[0]), *command[1:]],
            env=env,
            log=self.log(name),
            cwd=self.stack.state,
            file=self.file,
        )

    def start_mlflow(self, env: Mapping[str, str]) -> None:
        """Start the tracking server; on an empty database it makes its own tables."""
        artifacts = self.stack.state / "mlflow"
        artifacts.mkdir(exist_ok=True)
        command = [
            *("mlflow", "server", "--host", HOST, "--port", str(self.ports.mlflow)),
            *("--workers", "1", "--backend-store-uri", database_uri(self.stack, "mlflow")),
            *("--artifacts-destination", str(artifacts)),
        ]
        self.start("mlflow", command, env)

    def start_airflow(self, env: Mapping[str, str]) -> None:
        """Start API server, scheduler and DAG processor."""
        for name, arguments in AIRFLOW_PARTS.items():
            self.start(name, ["airflow", *arguments], env)

    def check(self) -> None:
        """Raise LocalError, with the end of its log, when a service has ended by itself."""
        for name, child in self.running.items():
            if child.poll() is not None:
                log = self.log(name)
                raise LocalError(
                    f"{name} ended by itself (status {child.returncode}); the end of {log}:\n"
                    f"{last_lines(log)}"
                )

    def wait(self, ready: Callable[[], bool], what: str, seconds: float) -> None:
        """Wait until ``ready()``, while every service keeps running.

        Raises:
            LocalError: when a service ended, or it took longer than ``seconds``.
        """
        deadline = time.monotonic() + seconds
        while not ready():
            self.check()
            if time.monotonic() > deadline:
                raise LocalError(
                    f"{what} did not get ready within {seconds:.0f} s; see {self.stack.logs}"
                )
            time.sleep(0.3)

    def mlflow_ready(self) -> bool:
        """Whether the tracking server answers."""
        try:
            with requests.Session() as session:
                session.trust_env = False
                return session.get(f"{self.mlflow_address}/health", timeout=3).ok
        except requests.RequestException:
            return False

    def airflow_ready(self) -> bool:
        """Whether API server, scheduler and DAG processor are healthy."""
        return not self.airflow.unhealthy()
