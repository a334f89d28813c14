"""docker/compose.yaml as processes of this machine: what each service is told, moved to free ports
of the loopback address and to folders of the test.

Nothing of a command, a variable or a health check is written down again here."""

from __future__ import annotations

import os
import re
import socket
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

__all__ = ["COMPOSE", "DOCKERFILE", "REPOSITORY", "Moved", "Places", "Service", "declared", "moved"]

REPOSITORY = Path(__file__).resolve().parents[2]
DOCKER = REPOSITORY / "docker"
COMPOSE = DOCKER / "compose.yaml"
DOCKERFILE = DOCKER / "Dockerfile"
HOST = "127.0.0.1"
IMAGE = "/opt/rankmill"
"""Where the image holds the repository."""

_VARIABLE = re.compile(r"\$\{([A-Z_]+)(?::-([^}]*))?\}")
_INSIDE = r"(?<![\w.:/-])(?P<path>/(?:var/lib|run/secrets|data|tmp|opt)(?:/[\w./-]*)?)(?![\w-])"


@dataclass(frozen=True)
class Service:
    """A service of the file, its variables replaced.

    Attributes:
        ports: those that it listens on, inside its container.
        volumes: what is mounted, {path inside: volume's name, or path on this machine}.
        patience_s: what its health check may take.
        needs: other services, and what to wait for.
    """

    name: str
    image: str
    entrypoint: tuple[str, ...]
    command: tuple[str, ...]
    environment: Mapping[str, str]
    secrets: tuple[str, ...]
    volumes: Mapping[str, str]
    ports: tuple[str, ...]
    health: tuple[str, ...]
    patience_s: float
    needs: Mapping[str, str]


def declared(settings: Mapping[str, str], path: Path = COMPOSE) -> dict[str, Service]:
    """The services, as they stand in the file, with ``settings`` as its .env."""

    def replaced(found: re.Match[str]) -> str:
        return settings.get(found[1]) or found[2] or ""

    document = yaml.safe_load(_VARIABLE.sub(replaced, path.read_text()))
    return {name: _service(name, entry) for name, entry in document["services"].items()}


def _service(name: str, entry: Mapping[str, Any]) -> Service:
    published = [port.rpartition(":")[2] for port in entry.get("ports", [])]
    mounts = [str(mount).split(":") for mount in entry.get("volumes", [])]
    check = entry.get("healthcheck", {})
    ports = {*published, *entry.get("expose", []), *entry.get("x-loopback", [])}
    return Service(
        name,
        entry["image"],
        tuple(entry.get("entrypoint", ())),
        tuple(str(word) for word in entry.get("command", ())),
        {key: str(value) for key, value in entry.get("environment", {}).items()},
        tuple(entry.get("secrets", ())),
        {mount[1]: mount[0] for mount in mounts},
        tuple(sorted(ports)),
        tuple(check.get("test", ())),
        float(check.get("timeout", "30s").removesuffix("s")),
        {other: how["condition"] for other, how in entry.get("depends_on", {}).items()},
    )


@dataclass(frozen=True)
class Places:
    """Where the services are moved to: a folder, and free ports by service and port inside."""

    folder: Path
    ports: Mapping[tuple[str, str], int]

    @classmethod
    def of(cls, folder: Path, services: Iterable[Service]) -> Places:
        """Free ports for all that listen; found together, so that no two are the same."""
        wanted = [(service.name, port) for service in services for port in service.ports]
        held = [socket.socket() for _ in wanted]
        try:
            for one in held:
                one.bind((HOST, 0))
            numbers = [int(one.getsockname()[1]) for one in held]
        finally:
            for one in held:
                one.close()
        return cls(folder, dict(zip(wanted, numbers, strict=True)))

    def address(self, service: str, port: str) -> str:
        """Host and port on this machine."""
        return f"{HOST}:{self.ports[service, port]}"

    def root(self, service: str) -> Path:
        """What stands for a container's own file system."""
        return self.folder / service

    def secrets(self, service: str) -> Path:
        """The secrets that a service is given, and no other."""
        return self.root(service) / "run" / "secrets"


@dataclass(frozen=True)
class Moved:
    """A service as it is started here: its whole environment, its command and its health check."""

    service: Service
    environment: Mapping[str, str]
    command: tuple[str, ...]
    health: tuple[str, ...]


def moved(service: Service, names: Iterable[str], places: Places) -> Moved:
    """``service`` on this machine, the other services being ``names``."""
    named = rf"(?<![\w.-])(?P<name>{'|'.join(map(re.escape, names))}):(?P<port>\d+)"
    own = rf"(?<!\d)(?P<own>{'|'.join(service.ports) or '(?!)'})(?!\d)"
    # In one pass: what was put in holds numbers and words that would be replaced again.
    pattern = re.compile(rf"{_INSIDE}|{named}|{own}|(?P<every>0\.0\.0\.0)")

    def there(found: re.Match[str]) -> str:
        if found["path"]:
            return _inside(service, found["path"], places)
        if found["name"]:
            return places.address(found["name"], found["port"])
        return str(places.ports[service.name, found["own"]]) if found["own"] else HOST

    def text(value: str) -> str:
        return HOST if value == service.name else pattern.sub(there, value)

    environment = {key: text(value) for key, value in service.environment.items()}
    program = (*(service.entrypoint or _image_entrypoint(service)), *service.command[:1])
    words = [*(pattern.sub(there, word) for word in program), *map(text, service.command[1:])]
    kind, *check = service.health or ("NONE",)
    shell = {"CMD": [], "CMD-SHELL": ["sh", "-c"], "NONE": []}[kind]
    return Moved(
        service,
        {**_machine(service, places), **environment},
        tuple(words),
        (*shell, *(text(word) for word in check)),
    )


def _image_entrypoint(service: Service) -> tuple[str, ...]:
    """The entrypoint of our image, without the init process that a container needs."""
    if not service.image.startswith("rankmill:"):
        return ()
    line = re.findall(r"^ENTRYPOINT (\[.+\])$", DOCKERFILE.read_text(), re.MULTILINE)[-1]
    return tuple(word for word in yaml.safe_load(line) if word not in ("tini", "--"))


def _inside(service: Service, path: str, places: Places) -> str:
    """Where a container's ``path`` lies on this machine."""
    if path == IMAGE or path.startswith(f"{IMAGE}/"):
        return f"{REPOSITORY}{path.removeprefix(IMAGE)}"
    for mount in sorted(service.volumes, key=len, reverse=True):
        if path == mount or path.startswith(f"{mount}/"):
            return f"{_mounted(service.volumes[mount], places)}{path.removeprefix(mount)}"
    return f"{places.root(service.name)}{path}"


def _mounted(source: str, places: Places) -> Path:
    """A named volume below the folder; a path of this machine as it is."""
    if source.startswith("."):
        return (DOCKER / source).resolve()
    return Path(source) if source.startswith("/") else places.folder / "volumes" / source


def _machine(service: Service, places: Places) -> dict[str, str]:
    """What a container has by itself: the image's variables, a home, an address of its own."""
    root = places.root(service.name)
    for folder in ("tmp", "home"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for inside, source in service.volumes.items():
        target = _mounted(source, places)
        if not target.exists():
            target.mkdir(parents=True)
        link = root / inside.lstrip("/")
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.exists():
            link.symlink_to(target)
    result = {
        "PATH": f"{Path(sys.prefix) / 'bin'}:{os.environ['PATH']}",
        "VIRTUAL_ENV": sys.prefix,
        "PYTHONUNBUFFERED": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "HOME": str(root / "home"),
        "TMPDIR": str(root / "tmp"),
        "TZ": "UTC",
        "RANKMILL_SECRETS_DIR": str(places.secrets(service.name)),
        "SPARK_LOCAL_IP": HOST,
    }
    return result | {k: os.environ[k] for k in ("JAVA_HOME", "LANG") if k in os.environ}
