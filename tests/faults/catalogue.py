"""Every fault that the jobs are put through."""

from __future__ import annotations

from typing import Final

from tests.faults.crowd import concurrent_backfills
from tests.faults.disk import disk_full
from tests.faults.distributed import scheduler_killed, worker_killed
from tests.faults.files import READS, committed_file_damaged, source_file_damaged
from tests.faults.hourly import JOBS
from tests.faults.servers import (
    database_killed,
    database_locked,
    job_killed,
    mlflow_killed,
    store_cut_off,
)
from tests.faults.trials import Fault

__all__ = ["FAULTS", "fault"]

_EVERY: Final = tuple(job.name for job in JOBS)
_COMMITTING: Final = ("ingest_events", "extract_features", "build_samples", "evaluate", "promote")

FAULTS: Final[tuple[Fault, ...]] = (
    Fault("job killed", "SIGKILL to the JVM, the Python process, or the whole group",
          _EVERY, job_killed),
    Fault("PostgreSQL killed", "SIGKILL to all of PostgreSQL, back after 1, 4 or 30 s",
          _EVERY, database_killed, r"catalog database .* does not answer|MLflow"),
    Fault("database locked", "a session locks the catalog's tables for 2 to 8 s",
          _EVERY, database_locked, r"catalog database"),
    Fault("MLflow killed", "SIGKILL to MLflow's server, back after 1, 4 or 30 s",
          ("train_gbdt", "promote", "validate_events", "evaluate", "build_graph", "embed_graph"),
          mlflow_killed, r"MLflow at http\S+ did not .*Start the server"),
    Fault("disk full", "the warehouse's file system has up to 64 KiB left until the job has ended",
          _COMMITTING, disk_full, r"no space left .*run the same command again"),
    Fault("store cut off", "the bucket's server hangs, or is killed, for 1, 4 or 30 s",
          ("ingest_events", "extract_features", "build_samples", "train_gbdt", "promote"),
          store_cut_off, r"object store at http\S+ does not answer", world="bucket"),
    Fault("Spark worker killed", "SIGKILL to one of two workers and to its executors",
          ("extract_features", "build_samples", "build_graph"), worker_killed, r"Spark|executor",
          world="cluster", short=False),
    Fault("scheduler killed", "SIGKILL to Airflow's scheduler in the hour's run, started again",
          ("build_samples",), scheduler_killed, r"$", world="airflow", short=False),
    Fault("log file corrupt", "a file of the log is cut short, empty, or has a byte changed",
          ("ingest_events",), source_file_damaged,
          r"is not a readable Parquet file .*write it again", during=False),
    Fault("table file corrupt",
          "a committed file is cut short, empty, gone, or has a byte changed",
          tuple(READS), committed_file_damaged, r"Make that again with: spark-submit",
          during=False),
    Fault("concurrent backfills", "the same hour twice, and hours that overlap, all at once",
          ("ingest_events", "promote", "train_gbdt", "extract_features", "build_samples",
           "validate_events", "evaluate"),
          concurrent_backfills, r"was taken over by run", during=False),
)  # fmt: skip


def fault(name: str) -> Fault:
    """The declared fault ``name``.

    Raises:
        KeyError: when there is none, with those that there are.
    """
    for one in FAULTS:
        if one.name == name:
            return one
    raise KeyError(f"no fault {name!r}; there are {[one.name for one in FAULTS]}")
