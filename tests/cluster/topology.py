"""All services of docker/compose.yaml, started on this machine in the order of their needs."""

from __future__ import annotations

import base64
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import yaml

from local.airflow_api import AirflowApi
from local.processes import ProcessFile, spawn, stop_everything
from tests.cluster.compose import COMPOSE, REPOSITORY, Moved, Places, declared, moved
from tests.cluster.postgres import postgres_command, postgres_environment

__all__ = ["Topology", "topology"]

PATIENCE_S = 240


class Topology:
    """The running services.

    Attributes:
        secrets: by name; random, with what must be quoted in an address where that is allowed.
    """

    def __init__(self, folder: Path, settings: Mapping[str, str]) -> None:
        services = declared(settings)
        self.folder = folder
        self.places = Places.of(folder, services.values())
        published = {  # as in .env, so that the services know under which port they are met
            "AIRFLOW_PORT": self.port("airflow-api", "8080"),
            "MLFLOW_PORT": self.port("mlflow", "5000"),
        }
        services = declared({**settings, **published})
        self.secrets = {name: _secret(name) for name in _secret_names()}
        self.services = {n: moved(s, services, self.places) for n, s in services.items()}
        self.file = ProcessFile(folder / "processes.json", folder.name)
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        for service in services.values():
            self._write_secrets(service.name, service.secrets)

    def port(self, service: str, port: str) -> str:
        """The port on this machine of a service's port inside."""
        return str(self.places.ports[service, port])

    def log(self, name: str) -> Path:
        """All that a service wrote."""
        return self.folder / "logs" / f"{name}.log"

    def airflow(self) -> AirflowApi:
        """Airflow, signed in as its administrator."""
        login = ("admin", self.secrets["airflow_admin_password"])
        return AirflowApi(f"http://{self.places.address('airflow-api', '8080')}", login)

    def start(self) -> None:
        """Start each service as soon as what it needs is there, until all are healthy."""
        with ThreadPoolExecutor(len(self.services)) as pool:
            self._start(pool)

    def _start(self, pool: ThreadPoolExecutor) -> None:
        waiting, healthy = dict(self.services), set[str]()
        asked: dict[str, Future[bool]] = {}
        deadline = time.monotonic() + PATIENCE_S
        while waiting or healthy != set(self.services):
            for name, service in list(waiting.items()):
                if service.service.needs.keys() <= healthy:
                    self._running[name] = self._spawn(waiting.pop(name))
            for name in self._running.keys() - healthy - asked.keys():
                asked[name] = pool.submit(self._healthy, name)
            for name in [name for name, answer in asked.items() if answer.done()]:
                if asked.pop(name).result():
                    healthy.add(name)
            if time.monotonic() > deadline:
                missing = sorted(set(self.services) - healthy)
                words = "\n".join(f"{n}:\n{self.tail(n)}" for n in missing if n in self._running)
                raise AssertionError(f"not healthy in {PATIENCE_S} s: {missing}\n{words}")
            time.sleep(0.3)

    def run(self, service: str, *command: str) -> subprocess.CompletedProcess[str]:
        """A command inside a running service, as by ``docker compose exec SERVICE ENTRYPOINT``."""
        there = self.services[service]
        entrypoint = there.command[: len(there.command) - len(there.service.command)]
        return subprocess.run(
            [*entrypoint, *command],
            env=dict(there.environment),
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=False,
            timeout=1500,
        )

    def tail(self, name: str) -> str:
        """The end of a service's log."""
        return self.log(name).read_text(errors="replace")[-3000:]

    def stop(self) -> None:
        """End every process."""
        stop_everything(self.file, seconds=5)
        for process in self._running.values():
            process.wait(30)

    def _spawn(self, moved: Moved) -> subprocess.Popen[bytes]:
        name, user, command, env = moved.service.name, None, moved.command, moved.environment
        if name == "postgres":
            command, user = postgres_command(moved, self.places, self.secrets["postgres_password"])
            env = postgres_environment(moved, self.places)
        return spawn(
            name, command, env=env, log=self.log(name), cwd=REPOSITORY, file=self.file, user=user
        )

    def _healthy(self, name: str) -> bool:
        """Whether a service's own health check passes; of one that ends, whether it has.

        One that does not pass is not asked again for as long as it took, so that checks, some of
        which take seconds, leave the machine to the services.
        """
        moved = self.services[name]
        status = self._running[name].poll()
        if not moved.health:
            assert status in (None, 0), f"{name} ended with {status}:\n{self.tail(name)}"
            return status == 0
        assert status is None, f"{name} ended with {status}:\n{self.tail(name)}"
        env = postgres_environment(moved, self.places) if name == "postgres" else moved.environment
        began = time.monotonic()
        try:
            done = subprocess.run(moved.health, env=dict(env), cwd=REPOSITORY, capture_output=True,
                                  check=False, timeout=moved.service.patience_s)  # fmt: skip
        except subprocess.TimeoutExpired:
            return False
        if done.returncode:
            time.sleep(1 + time.monotonic() - began)
        return done.returncode == 0

    def _write_secrets(self, service: str, names: tuple[str, ...]) -> None:
        folder = self.places.secrets(service)
        folder.mkdir(parents=True, mode=0o755)
        for name in names:
            (folder / name).write_text(f"{self.secrets[name]}\n")


def _secret_names() -> list[str]:
    return list(yaml.safe_load(COMPOSE.read_text())["secrets"])


def _secret(name: str) -> str:
    if name == "airflow_fernet_key":
        return base64.urlsafe_b64encode(secrets.token_bytes(32)).decode()
    # Passwords may hold anything, also what an address and a file of settings must quote.
    return secrets.token_hex(24) + ("/@:%&" if name.endswith("_password") else "")


@contextmanager
def topology(settings: Mapping[str, str]) -> Iterator[Topology]:
    """All services, healthy; ended and their folder removed afterwards.

    Args:
        settings: what docker/.env would say.
    """
    # pytest's own temporary folders are closed to the database's user, and too long for sockets.
    folder = Path(tempfile.mkdtemp(prefix="rankmill-topology-"))
    folder.chmod(0o755)
    made = Topology(folder, settings)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(folder)
