"""One real stack for the slow tests: PostgreSQL, MLflow's server, a store filled from KuaiRand.

It is made once per test session, whichever folder asks first: the bootstrap takes most of its time.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from feature_store import hours as hr
from feature_store.ledger import Completion
from feature_store.sequence_views import SEQUENCE_VIEWS
from feature_store.tables import Store
from feature_store.views import VIEWS
from local.database import Database
from local.processes import ProcessFile, group_members, stop_everything
from local.services import Services
from local.settings import environment, write_spark_settings
from local.stack import Ports, open_stack
from models.registry import Registry
from tests.object_store import free_ports

REPOSITORY = Path(__file__).resolve().parents[2]
DATA = REPOSITORY.parent / "shared" / "data" / "kuairand"

# 24 hours to train on and one to be held out; the last one also ends a business day, so that its
# features hold every living key.
FIRST, LAST = "2022-04-24T15", "2022-04-25T15"
NEXT = hr.hour_range(hr.add(LAST, 1), hr.add(LAST, 3))

EXTRACTED = [table for view in VIEWS for table in (view.counts_table, view.features_table)]
BESIDE_SAMPLES = ["outcomes", "behaviour", *(view.table for view in SEQUENCE_VIEWS)]
ENTITIES = ["users", "items", "rooms"]
HOURLY = ["events", "quarantine", *ENTITIES, "samples", *BESIDE_SAMPLES, *EXTRACTED]

requires_data = pytest.mark.skipif(
    not DATA.is_dir(), reason="the published KuaiRand log is not in ../shared/data/kuairand"
)
requires_java = pytest.mark.skipif(shutil.which("java") is None, reason="spark-submit needs Java")


@dataclass(frozen=True)
class Running:
    """The running stack: its folder, the environment of its jobs, the bootstrap's summary."""

    folder: Path
    env: dict[str, str]
    bootstrapped: dict[str, Any]
    _file: ProcessFile
    _services: Services
    _database: Database

    @functools.cached_property
    def store(self) -> Store:
        """The store, opened in this process."""
        return Store(self.env["RANKMILL_WAREHOUSE"], self.env["RANKMILL_CATALOG_URI"])

    @functools.cached_property
    def registry(self) -> Registry:
        """The registry, through MLflow's server."""
        return Registry(self.env["MLFLOW_TRACKING_URI"])

    def completions(self, hour: str, tables: Sequence[str] = HOURLY) -> dict[str, Completion]:
        """What ``hours`` says of one hour, by table; absent where it is not complete."""
        found = {table: self.store.ledger.completions(table, hour, hour) for table in tables}
        return {table: rows[hour] for table, rows in found.items() if hour in rows}

    def contents(self, hour: str, tables: Sequence[str] = HOURLY) -> dict[str, tuple[int, str]]:
        """Rows and content hash of one hour, by table."""
        return {t: (c.rows, c.content_hash) for t, c in self.completions(hour, tables).items()}

    def submit(self, job: str, *arguments: str) -> list[str]:
        """The spark-submit command line of a job, on two cores of this machine unless the
        environment names another master."""
        submit = [str(Path(sys.executable).with_name("spark-submit"))]
        submit += ["--master", self.env["RANKMILL_SPARK_MASTER"]]
        return [*submit, str(REPOSITORY / "jobs" / f"{job}.py"), *arguments]

    def wait_for_mlflow(self) -> None:
        """Wait until the tracking server answers; nothing before a model or a page needs it."""
        self._services.wait(self._services.mlflow_ready, "MLflow", 120)

    def kill(self, service: str) -> None:
        """End ``postgres`` or ``mlflow``, with all that it started, as a loss of power would."""
        child = self._services.running.pop(service)
        for pid in group_members(child.pid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        child.wait()

    def start_database(self) -> None:
        """Start PostgreSQL, anew after a kill."""
        server = self._database.start(self._file, self.env)
        self._services.running["postgres"] = server

    def start_mlflow(self) -> None:
        """Start MLflow's server, anew after a kill; see ``wait_for_mlflow``."""
        self._services.start_mlflow(self.env)

    @property
    def services(self) -> Services:
        """MLflow, and Airflow where somebody starts it."""
        return self._services

    def query(self, database: str, statement: str) -> str:
        """What PostgreSQL says to ``statement``, unaligned rows as text."""
        return self._database.query(database, statement, self.env)

    def close(self) -> None:
        """Stop every process and delete the folder."""
        if "store" in self.__dict__:
            self.store.close()
        stop_everything(self._file)
        for child in self._services.running.values():
            child.wait(10)
        shutil.rmtree(self.folder)


def project_folder(prefix: str, configuration: str, text: str) -> Path:
    """A project's folder that holds one configuration."""
    # pytest's own temporary folders are closed to the database's user, and too long for sockets.
    folder = Path(tempfile.mkdtemp(prefix=f"rankmill-{prefix}-"))
    folder.chmod(0o755)
    (folder / "conf").mkdir()
    shutil.copy(REPOSITORY / "conf" / "log4j2.properties", folder / "conf")
    (folder / "conf" / f"{configuration}.yaml").write_text(text)
    (folder / ".venv").symlink_to(sys.prefix)
    return folder


def started(folder: Path, source: str, data: Path | None) -> Running:
    """PostgreSQL, and MLflow's server on its way up; the store is empty."""
    stack = open_stack(source, data and str(data), root=folder)
    ports = Ports(*free_ports(2))  # not the usual ones, which other stacks here look for
    env = environment(stack, ports) | {"RANKMILL_SPARK_MASTER": "local[2]"}
    file = ProcessFile(stack.state / "processes.json", stack.mark)
    services = Services(stack, ports, file)
    try:
        write_spark_settings(stack)
        folders = stack.state / "postgres", stack.short_folder
        database = Database(*folders, stack.logs / "postgres.log")
        run = Running(folder, env, {}, file, services, database)
        run.start_database()
        run.start_mlflow()
    except BaseException:
        stop_everything(file)
        shutil.rmtree(folder)
        raise
    return run


@functools.cache
def running() -> Running:
    """The stack of this session, started and bootstrapped at the first call."""
    # Few trees: these tests are about rows and versions, not quality.
    text = (REPOSITORY / "conf" / "kuairand.yaml").read_text().replace("rounds: 300", "rounds: 30")
    run = started(project_folder("e2e", "kuairand", text), "kuairand", DATA)
    try:
        run.wait_for_mlflow()
        hours = ("--from-hour", FIRST, "--to-hour", LAST)
        run.bootstrapped.update(finished(run.submit("bootstrap", *hours), run.env))
    except BaseException:
        run.close()
        raise
    return run


def finished(command: Sequence[str], env: dict[str, str]) -> dict[str, Any]:
    """Run a job to its end and return its summary."""
    done = subprocess.run(
        list(command), env=env, cwd=env["TMPDIR"], capture_output=True, text=True, check=False
    )
    words = f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    assert done.returncode == 0, f"{command[-4:]} ended with {done.returncode}:\n{words}"
    summary: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return summary
