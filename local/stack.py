"""Which stack: the source, its configuration and data, the folder that holds all, the ports."""

from __future__ import annotations

import hashlib
import os
import socket
import tempfile
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "HOST",
    "LONGEST_SOCKET_FOLDER",
    "LocalError",
    "Ports",
    "Stack",
    "choose_ports",
    "configuration",
    "open_stack",
]

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
USUAL_PORTS = {"mlflow": 5000, "airflow": 8080}
SIMULATED = ("simulator", "demo")
SHARED = "gates.yaml"
"""The one file in conf/ that is no configuration: what every configuration starts from."""
# The longest path of a Unix socket is 107 bytes; the database's file and a multiprocessing
# listener's each need up to some forty below the folder.
LONGEST_SOCKET_FOLDER = 64


class LocalError(Exception):
    """The stack cannot go on; the message says why and what to do."""


@dataclass(frozen=True)
class Ports:
    """The loopback ports in use."""

    mlflow: int
    airflow: int


@dataclass(frozen=True)
class Stack:
    """One source's stack: the configuration, the data, and the folder that holds all it makes."""

    root: Path
    source: str
    config: Path
    data: Path | None
    state: Path

    @property
    def simulated(self) -> bool:
        """Whether the event log is made here instead of read."""
        return self.source in SIMULATED and self.data is None

    @property
    def data_folder(self) -> Path | None:
        """Where the jobs find the event log; None when the configuration alone says it."""
        return self.state / "data" if self.simulated else self.data

    @property
    def warehouse(self) -> Path:
        """The Iceberg tables' files."""
        return self.state / "warehouse"

    @property
    def logs(self) -> Path:
        """One file per service and step."""
        return self.state / "logs"

    @property
    def bin(self) -> Path:
        """The environment's commands."""
        return self.root / ".venv" / "bin"

    @property
    def mark(self) -> str:
        """What the environment of every process of this state folder bears."""
        return hashlib.sha256(str(self.state).encode()).hexdigest()[:16]

    @property
    def short_folder(self) -> Path:
        """For sockets: in the state folder, or below the system's where that path is too long."""
        folder = self.state / "run"
        if len(os.fsencode(folder)) <= LONGEST_SOCKET_FOLDER:
            return folder
        return Path(tempfile.gettempdir()) / f"rankmill-{self.mark[:10]}"


def configuration(root: Path, source: str) -> Path:
    """The YAML file of ``source``: conf/SOURCE.yaml, and conf/demo.yaml for the simulator.

    Raises:
        LocalError: when there is none, naming those that exist.
    """
    name = "demo" if source in SIMULATED else source
    path = root / "conf" / f"{name}.yaml"
    if path.is_file():
        return path
    files = (root / "conf").glob("*.yaml")
    there = sorted(file.stem for file in files if file.name != SHARED)
    named = ", ".join("simulator" if stem == "demo" else stem for stem in there) or "none"
    raise LocalError(
        f"SOURCE={source} has no configuration: {path.relative_to(root)} does not exist. "
        f"There are: {named}. Copy one of them to start your own."
    )


def open_stack(source: str, data: str | None, root: Path = ROOT) -> Stack:
    """The stack of ``source``, its state folder made.

    Raises:
        LocalError: unknown source, or a data folder that does not exist.
    """
    config = configuration(root, source)
    folder = Path(data).expanduser().resolve() if data else None
    if folder and not folder.exists():
        raise LocalError(f"DATA={data} does not exist (looked for {folder}).")
    state = root / ".rankmill" / config.stem.replace("demo", "simulator")
    stack = Stack(root, source, config, folder, state)
    for path in (state, stack.logs, stack.warehouse, state / "tmp", state / "airflow"):
        path.mkdir(parents=True, exist_ok=True)
    if os.geteuid() == 0:  # the database then runs as another user, who must come through
        for path in (state.parent, state):
            path.chmod(path.stat().st_mode | 0o111)
    return stack


def is_free(port: int) -> bool:
    """Whether a server could listen on ``port`` of the loopback address now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((HOST, port))
        except OSError:
            return False
    return True


def choose_ports(usual: dict[str, int] | None = None) -> Ports:
    """The usual ports where they are free, else the next free ones above them.

    Raises:
        LocalError: when none of the hundred above a usual one is free.
    """
    taken: list[int] = []
    for name, first in (usual or USUAL_PORTS).items():
        for port in range(first, first + 100):
            if port not in taken and is_free(port):
                taken.append(port)
                break
        else:
            raise LocalError(f"No free port for {name} between {first} and {first + 99}.")
    return Ports(*taken)
