"""Deadlines of the hourly DAGs: what Airflow says of a run that takes too long.

Counted from when a run was queued: a run that an asset's partition fired has no logical date, and
an hour that is made up for days later is not late by that. Airflow runs the callback in the
scheduler's executor (a triggerer, which an ``AsyncCallback`` would need, is not started here) and
keeps what it says in ``executor_callbacks/DAG/RUN/`` of its log folder; the run's page shows the
deadline as missed. How late the data is, alert rules on the jobs' metrics say.

``DAG.test()`` and ``airflow dags test`` of Airflow 3.3 cannot end a successful run of a DAG that
has a deadline: they look the alert up by an id that only the scheduler's copy of the DAG has. All
tasks have run by then.
"""

from __future__ import annotations

import datetime as dt
import logging
from typing import Any

from airflow.sdk import DeadlineAlert, DeadlineReference, SyncCallback

__all__ = ["RUNBOOK", "late", "say_late"]

RUNBOOK = "docs/runbook.md"
_LOG = logging.getLogger(__name__)


def late(after: dt.timedelta, alert: str) -> DeadlineAlert:
    """The deadline of a run: done ``after`` it was queued, else ``alert`` of the runbook holds."""
    minutes = round(after.total_seconds() / 60)
    return DeadlineAlert(
        name=f"{alert}: done within {minutes} min of being queued",
        reference=DeadlineReference.DAGRUN_QUEUED_AT,
        interval=after,
        callback=SyncCallback(say_late, kwargs={"alert": alert, "minutes": minutes}),
    )


def say_late(alert: str, minutes: int, context: dict[str, Any]) -> str:
    """Log, as an error, which run is late and where the runbook says what to do; that sentence."""
    run = context["dag_run"]
    sentence = (
        f"{run['dag_id']} of {_hour_of(run)} was not done {minutes} min after it was queued "
        f"(state {run['state']}). What to do: {RUNBOOK}#{alert.lower()}"
    )
    _LOG.error("%s", sentence)
    return sentence


def _hour_of(run: dict[str, Any]) -> str:
    """The hour that a run is for, as its tasks see it; the run's id where it has none."""
    asked, start = (run.get("conf") or {}).get("hour"), run.get("data_interval_start")
    own = run.get("partition_key") or (start[: len("2026-11-11T05")] if start else None)
    return str(asked or own or run["dag_run_id"])
