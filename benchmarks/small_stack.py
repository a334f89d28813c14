"""The embedded PostgreSQL and an MLflow server on it, in a folder that outlives the process."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import sqlalchemy as sa
import yaml

from local.database import Database
from local.processes import ProcessFile, stop_everything
from local.services import Services
from local.settings import environment, write_spark_settings
from local.stack import Stack, choose_ports, open_stack

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class SmallStack:
    """What runs: the folders, the environment of jobs, and the servers' first processes."""

    stack: Stack
    env: dict[str, str]
    servers: Mapping[str, int]

    @property
    def log(self) -> Path:
        """Where the simulated events lie."""
        return Path(self.env["RANKMILL_DATA"])

    @property
    def artefacts(self) -> Path:
        """MLflow's files."""
        return self.stack.state / "mlflow"

    @property
    def scratch(self) -> Path:
        """Where jobs leave what is theirs alone."""
        return self.stack.state / "scratch"

    def rows(self, database: str, query: str) -> list[Any]:
        """What ``query`` finds in one of the server's databases."""
        uri = f"postgresql+psycopg2://postgres@/{database}?host={self.stack.short_folder}"
        engine = sa.create_engine(uri, isolation_level="AUTOCOMMIT")
        try:
            with engine.connect() as connection:
                result = connection.execute(sa.text(query))
                return list(result) if result.returns_rows else []
        finally:
            engine.dispose()


@contextlib.contextmanager
def small_stack(folder: Path, configuration: Mapping[str, Any]) -> Iterator[SmallStack]:
    """PostgreSQL and MLflow on the files of ``folder``, which a killed run may have left.

    The environment of this process becomes that of the jobs, so that they can be called in it.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends what it started
    prepare(folder, configuration)
    stack = open_stack("simulator", None, root=folder)
    file = ProcessFile(stack.state / "processes.json", stack.mark)
    stop_everything(file)
    # Stacks that start at the same moment must not both find the same port free.
    first = 20_000 + zlib.crc32(os.fsencode(stack.state)) % 10_000
    ports = choose_ports({"mlflow": first, "airflow": first + 100})
    env = environment(stack, ports)
    services = Services(stack, ports, file)
    write_spark_settings(stack)
    database: subprocess.Popen[bytes] | None = None
    try:
        folders = stack.state / "postgres", stack.short_folder
        database = Database(*folders, stack.logs / "postgres.log").start(file, env)
        services.start_mlflow(env)
        services.wait(services.mlflow_ready, "MLflow", 180)
        os.environ.update(env)
        servers = {"postgres": database.pid, "mlflow": services.running["mlflow"].pid}
        yield SmallStack(stack, env, servers)
    finally:
        stop_everything(file)
        for child in filter(None, (database, *services.running.values())):
            child.wait(20)


def clear(folder: Path) -> None:
    """Delete what a run made in ``folder``, once nothing of it runs any more."""
    if (folder / ".rankmill").exists():
        stack = open_stack("simulator", None, root=folder)
        stop_everything(ProcessFile(stack.state / "processes.json", stack.mark))
        shutil.rmtree(folder / ".rankmill")
        shutil.rmtree(stack.short_folder, ignore_errors=True)


def prepare(folder: Path, configuration: Mapping[str, Any]) -> None:
    """Make ``folder`` a project's: one configuration, the log's settings, this environment."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)  # the database runs as a user of its own
    (folder / "conf").mkdir(exist_ok=True)
    shutil.copy(ROOT / "conf" / "log4j2.properties", folder / "conf")
    (folder / "conf" / "demo.yaml").write_text(yaml.safe_dump(dict(configuration)))
    with contextlib.suppress(FileExistsError):
        (folder / ".venv").symlink_to(sys.prefix)


def tree(pid: int) -> list[psutil.Process]:
    """The process ``pid`` and all below it; empty when it is gone."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


class CpuMeter:
    """CPU seconds of a process and all below it, as far as they were seen.

    Of a process that has ended counts what it had computed when it was last looked at. What the
    system adds up for parents is not used: a process whose parent ended is nobody's child.
    """

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._known: dict[tuple[int, float], float] = {}

    def seconds(self) -> float:
        """What was computed so far; never less than before."""
        for process in tree(self._pid):
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                self._known[process.pid, process.create_time()] = times.user + times.system
        return sum(self._known.values())


def memory_mb(pid: int) -> float:
    """Memory of the tree of ``pid``, shared pages divided among those that share them, in MiB."""
    total = 0
    for process in tree(pid):
        with contextlib.suppress(psutil.Error):
            total += process.memory_full_info().pss
    return total / 2**20
