"""Deadlines of the hourly DAGs, through Airflow's own scheduler: made, missed and told."""

from __future__ import annotations

import datetime as dt
import json
import logging
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from airflow.dag_processing.dagbag import DagBag
from airflow.executors.workloads.callback import ExecuteCallback
from airflow.jobs.job import Job
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from airflow.models.callback import ExecutorCallback
from airflow.models.dag import DagModel
from airflow.models.dag_version import DagVersion
from airflow.models.dagrun import DagRun
from airflow.models.deadline import Deadline
from airflow.models.deadline_alert import DeadlineAlert as DeadlineAlertRow
from airflow.sdk import DAG, DeadlineAlert
from airflow.sdk.execution_time.callback_supervisor import execute_callback
from airflow.utils.session import create_session
from airflow.utils.state import DagRunState, TaskInstanceState
from sqlalchemy import select

from dags.deadlines import RUNBOOK, say_late
from tests.dags.conftest import REPOSITORY
from tests.dags.scheduling import emit, forget, listen

HOUR = "2026-11-11T05"
ALERTS = {"hourly_features": "RankmillHourLate", "hourly_gbdt": "RankmillTreesLate"}
PAGE = (REPOSITORY / RUNBOOK).read_text()
COMMANDS = sorted(
    set(re.findall(r"^ *(airflow .+)$", PAGE, re.M) + re.findall(r"`(airflow [^`]+)`", PAGE))
)


@pytest.fixture
def scheduler(database: Path) -> Iterator[SchedulerJobRunner]:  # noqa: ARG001
    """A scheduler that may run the hourly DAGs."""
    listen(tuple(ALERTS))
    yield SchedulerJobRunner(job=Job())  # type: ignore[no-untyped-call]
    forget(tuple(ALERTS))


def queue(scheduler: SchedulerJobRunner, dag_id: str) -> None:
    """Let the scheduler make the DAG's run, by its interval or by a partition of its asset."""
    if dag_id == "hourly_gbdt":
        emit([HOUR], "hour_ready")
        with create_session() as session:
            scheduler._create_dagruns_for_partitioned_asset_dags(session)
        return
    with create_session() as session:
        model = session.get(DagModel, dag_id)
        assert model is not None
        scheduler._create_dag_runs([model], session)


def deadlines(dag_id: str) -> list[tuple[dt.timedelta, bool]]:
    """From being queued to each deadline of the DAG's runs, and whether it was missed."""
    with create_session() as session:
        rows = session.execute(
            select(Deadline, DagRun).join(DagRun).where(DagRun.dag_id == dag_id)
        ).all()
        assert all(run.queued_at is not None for _, run in rows)
        return [(row.deadline_time - run.queued_at, row.missed) for row, run in rows]


def miss(dag_id: str) -> ExecuteCallback:
    """Let the deadline pass, as the scheduler's loop does; what it gives its executor to run."""
    with create_session() as session:
        row, run = session.execute(
            select(Deadline, DagRun).join(DagRun).where(DagRun.dag_id == dag_id)
        ).one()
        row.handle_miss(session)
        assert row.missed
        assert isinstance(row.callback, ExecutorCallback), "an AsyncCallback needs a triggerer"
        return ExecuteCallback.make(row.callback, run)


@pytest.mark.parametrize("dag_id", ALERTS)
def test_a_run_that_the_scheduler_makes_has_a_deadline(
    scheduler: SchedulerJobRunner, dag_id: str
) -> None:
    queue(scheduler, dag_id)
    assert deadlines(dag_id) == [(dt.timedelta(minutes=30), False)]


@pytest.mark.parametrize("dag_id", ALERTS)
def test_a_missed_deadline_is_told_with_the_runbooks_section(
    scheduler: SchedulerJobRunner, dag_id: str, caplog: pytest.LogCaptureFixture
) -> None:
    queue(scheduler, dag_id)
    data = miss(dag_id).callback.data
    with caplog.at_level(logging.ERROR, "dags.deadlines"):
        done = execute_callback(
            data["path"], data["kwargs"], Path("unused"), None, structlog.get_logger()
        )
    assert done == (True, None)
    [record] = caplog.records
    hour = HOUR if dag_id == "hourly_gbdt" else "2026-11-11T00"
    assert record.getMessage() == (
        f"{dag_id} of {hour} was not done 30 min after it was queued (state queued). "
        f"What to do: docs/runbook.md#{ALERTS[dag_id].lower()}"
    )


def test_a_run_that_is_done_in_time_has_none_left(scheduler: SchedulerJobRunner) -> None:
    queue(scheduler, "hourly_gbdt")
    with create_session() as session:
        run = session.scalars(select(DagRun).where(DagRun.dag_id == "hourly_gbdt")).one()
        run.dag = scheduler.scheduler_dag_bag.get_dag_for_run(dag_run=run, session=session)
        run.verify_integrity(dag_version_id=run.created_dag_version_id, session=session)
        for task in run.get_task_instances(session=session):
            task.set_state(TaskInstanceState.SUCCESS, session=session)
        run.state = DagRunState.RUNNING
        run.update_state(session=session)
        assert run.state == DagRunState.SUCCESS
    assert deadlines("hourly_gbdt") == []


@pytest.mark.parametrize("dag_id", ALERTS)
def test_parsing_again_makes_no_version_of_the_dag(
    scheduler: SchedulerJobRunner, dag_id: str
) -> None:
    queue(scheduler, dag_id)
    versions = select(DagVersion.id).where(DagVersion.dag_id == dag_id)
    alerts_known = select(DeadlineAlertRow.id)
    with create_session() as session:
        before = session.scalars(versions).all(), session.scalars(alerts_known).all()
    listen(tuple(ALERTS))
    with create_session() as session:
        assert (session.scalars(versions).all(), session.scalars(alerts_known).all()) == before


@pytest.mark.parametrize(
    ("run", "named"),
    [
        ({"conf": {"hour": HOUR}, "partition_key": "2026-11-11T06"}, HOUR),
        ({"conf": {}, "data_interval_start": "2026-11-11T05:00:00Z"}, HOUR),
        ({"conf": None, "data_interval_start": None}, "manual__1"),
    ],
)
def test_the_hour_is_the_one_that_the_tasks_see(run: dict[str, Any], named: str) -> None:
    known = {"dag_id": "d", "dag_run_id": "manual__1", "state": "running", **run}
    assert say_late("A", 5, {"dag_run": known}).startswith(f"d of {named} was not done 5 min ")


def alerts(dag: DAG) -> list[DeadlineAlert]:
    found = dag.deadline or []
    return found if isinstance(found, list) else [found]


def test_an_hour_is_promised_within_an_hour_and_every_deadline_has_a_section(
    dag_bag: DagBag,
) -> None:
    found = {dag.dag_id: alerts(dag) for dag in dag_bag.dags.values() if alerts(dag)}
    assert {dag: [a.callback.kwargs["alert"] for a in of] for dag, of in found.items()} == {
        dag: [alert] for dag, alert in ALERTS.items()
    }
    intervals = [alert.interval for of in found.values() for alert in of]
    assert sum(intervals, dt.timedelta()) == dt.timedelta(hours=1)
    for alert in ALERTS.values():
        assert f"\n## {alert}\n" in PAGE


@pytest.mark.parametrize("line", COMMANDS)
def test_airflow_takes_the_runbooks_commands(line: str, dag_bag: DagBag) -> None:
    from airflow.cli.cli_parser import get_parser

    given = get_parser().parse_args(shlex.split(line)[1:])
    if hasattr(given, "dag_id"):
        dag = dag_bag.dags[given.dag_id]
        assert getattr(given, "task_regex", None) in (None, *dag.task_ids)
        if getattr(given, "conf", None):
            assert set(json.loads(given.conf)) <= set(dag.params)
