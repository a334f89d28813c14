"""A project of its own for each test: a canonical log, a configuration, a store; jobs run in it."""

from __future__ import annotations

import datetime as dt
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from pyiceberg.catalog.sql import SqlCatalog

from feature_store import hours as hr
from feature_store.schemas import SOURCE_EVENTS, optional
from feature_store.tables import Store
from models.registry import Registry

# Spinning OpenMP threads make tiny boosters slow where cores are shared.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

ROOT = Path(__file__).resolve().parents[2]
HOUR = "2026-11-11T05"
VARIABLES = (
    "CONFIG", "DATA", "WAREHOUSE", "CATALOG_URI", "RUN_ID", "START_HOUR", "END_HOUR", "METRICS",
)  # fmt: skip


def event(number: int, hour: str = HOUR, **changes: Any) -> dict[str, Any]:
    """A good impression of ``hour``; ``arrived`` and ``happened`` are minutes after its start."""
    arrived, happened = changes.pop("arrived", 30.0), changes.pop("happened", None)
    start = hr.start_of(hour)
    row = {
        "event_id": f"{hour}-{number}",
        "event_time": start + dt.timedelta(minutes=arrived if happened is None else happened),
        "ingested_at": start + dt.timedelta(minutes=arrived),
        "request_id": f"{hour}-r{number // 5}",
        "user_id": f"u{number % 7}",
        "target_type": "item",
        "target_id": f"i{number % 11}",
        "item_id": f"i{number % 11}",
        "position": number % 5 + 1,
        "action": "impression",
        "value": None,
    }
    return {**row, **changes}


def events(count: int, hour: str = HOUR, **changes: Any) -> list[dict[str, Any]]:
    return [event(number, hour, **changes) for number in range(count)]


@dataclass(frozen=True)
class Result:
    """How a job ended: exit status, summary line and everything that it printed."""

    code: int
    summary: dict[str, Any]
    out: str
    err: str


@dataclass
class Project:
    """A log, a configuration and a store in one folder; jobs know MLflow when it is ``tracked``.

    The tables may lie elsewhere: ``warehouse``.
    """

    folder: Path
    capture: pytest.CaptureFixture[str] | None = None
    tracked: bool = True
    warehouse: str = ""

    def __post_init__(self) -> None:
        self.warehouse = self.warehouse or str(self.folder / "warehouse")

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def catalog_uri(self) -> str:
        return f"sqlite:///{self.folder}/catalog.db"

    @property
    def tracking_uri(self) -> str:
        return f"sqlite:///{self.folder}/mlflow.db"

    def write(self, rows: Iterable[Mapping[str, Any]], name: str = "a") -> Path:
        """``rows`` as a file of the log."""
        table = pa.Table.from_pylist([dict(row) for row in rows], schema=optional(SOURCE_EVENTS))
        return self.write_table(table, name)

    def write_table(self, table: pa.Table, name: str = "a") -> Path:
        path = self.data / "events" / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(table, path)
        return path

    def configure(self, **sections: Any) -> None:
        """Write the configuration; the source is this project's log unless given."""
        document = {"source": {"name": "parquet", "options": {"path": str(self.data)}}, **sections}
        (self.folder / "conf.yaml").write_text(yaml.safe_dump(document))

    def arguments(self, *given: str) -> list[str]:
        return [
            "--config", str(self.folder / "conf.yaml"),
            "--warehouse", self.warehouse,
            "--catalog-uri", self.catalog_uri,
            *(["--tracking-uri", self.tracking_uri] if self.tracked else []),
            *given,
        ]  # fmt: skip

    def run(self, job: str, *given: str) -> Result:
        """``jobs.JOB.main`` with the arguments ``given``, later ones overriding the project's."""
        if self.capture is None:
            raise RuntimeError("a project without a capture only holds a store")
        self.capture.readouterr()
        code = importlib.import_module(f"jobs.{job}").main(self.arguments(*given))
        captured = self.capture.readouterr()
        return Result(code, _summary(captured.out), captured.out, captured.err)

    def spawn(self, job: str, *given: str) -> Result:
        """The job as a process of its own."""
        command = [sys.executable, str(ROOT / "jobs" / f"{job}.py"), *self.arguments(*given)]
        environment = {**os.environ, "RANKMILL_SPARK_MASTER": "local[1]"}
        ended = subprocess.run(
            command, capture_output=True, text=True, cwd=self.folder, env=environment,
            timeout=120, check=False,
        )  # fmt: skip
        return Result(ended.returncode, _summary(ended.stdout), ended.stdout, ended.stderr)

    def store(self) -> Store:
        return Store(self.warehouse, self.catalog_uri)

    def state(self) -> dict[str, Any]:
        """Everything that is committed: rows in order, as Iceberg sees them, and completions.

        Read through a catalog of its own, so that the state does not depend on the store's word.
        """
        catalog = SqlCatalog("rankmill", uri=self.catalog_uri, warehouse=f"file://{self.warehouse}")
        found: dict[str, Any] = {}
        store = self.store()
        for identifier in catalog.list_tables("rankmill"):
            name = identifier[-1]
            planned = catalog.load_table(identifier).scan().plan_files()
            paths = [task.file.file_path.removeprefix("file://") for task in planned]
            files = sorted(
                (pq.read_table(p).to_pylist() for p in paths), key=lambda r: r[0]["hour"]
            )
            found[f"{name} rows"] = [row for rows in files for row in rows]
            found[f"{name} hours"] = {
                c.hour: (c.rows, c.content_hash, c.validated)
                for c in store.ledger.completions(name, "0", "9").values()
            }
        store.close()
        catalog.engine.dispose()
        return {name: value for name, value in found.items() if value}


def _summary(out: str) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads(out.splitlines()[-1])
    assert {"job", "hours", "status", "rows_in", "rows_out", "rejected", "seconds", "snapshots",
            "model", "mlflow_run_url", "message"} <= set(summary)  # fmt: skip
    return summary


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty tracking database: MLflow's migrations take seconds, a copy takes none."""

    folder = tmp_path_factory.mktemp("migrated")
    Registry(f"sqlite:///{folder}/mlflow.db").versions("nothing")
    return folder / "mlflow.db"


@pytest.fixture
def project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Project:
    """An empty project whose settings are its own."""
    for name in (*(f"RANKMILL_{variable}" for variable in VARIABLES), "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    made = Project(tmp_path, capsys)
    made.configure(ingest={"max_bad_share": 0.1, "min_bad_rows": 0})
    return made
