"""Every task's rendered arguments are arguments of its own job."""

from __future__ import annotations

import datetime as dt
import importlib
from typing import Any

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import DAG, BaseOperator
from airflow.sdk.exceptions import ParamValidationError

from dags.tasks import SparkJobOperator, run_params

SAMPLE = "2026-11-11T05"
INTERVAL = {
    "partition_key": None,
    "data_interval_start": dt.datetime(2026, 11, 11, 5, tzinfo=dt.UTC),
}
PARTITION: dict[str, Any] = {"partition_key": SAMPLE}

TASKS = [
    ("hourly_features", "ingest_events", INTERVAL),
    ("hourly_features", "validate_events", INTERVAL),
    ("hourly_features", "build_samples", INTERVAL),
    ("hourly_features", "extract_features", INTERVAL),
    ("hourly_gbdt", "train_gbdt", PARTITION),
    ("hourly_gbdt", "evaluate", PARTITION),
    ("hourly_gbdt", "promote", PARTITION),
    ("offline_evaluation", "evaluate", PARTITION),
    ("maintenance", "maintain", INTERVAL),
]

IDS = [f"{dag}.{task}" for dag, task, _ in TASKS]


def rendered(dag: DAG, task_id: str, run: dict[str, Any], **params: Any) -> BaseOperator:
    """The task as a run would execute it."""
    task = dag.get_task(task_id).prepare_for_execution()
    values = dag.params.dump() | params
    task.render_template_fields({**run, "params": values, "dag": dag, "task": task})
    return task


def arguments(task: BaseOperator) -> list[str]:
    return task.application_args if isinstance(task, SparkJobOperator) else task.arguments


def test_the_table_above_names_every_task(dag_bag: DagBag) -> None:
    every = {(dag.dag_id, task) for dag in dag_bag.dags.values() for task in dag.task_ids}
    assert {(dag, task) for dag, task, _ in TASKS} == every


@pytest.mark.parametrize(("dag_id", "task_id", "run"), TASKS, ids=IDS)
@pytest.mark.parametrize("dry_run", [False, True])
def test_a_jobs_own_parser_takes_what_its_task_passes(
    dag_bag: DagBag, dag_id: str, task_id: str, run: dict[str, Any], dry_run: bool
) -> None:
    task = rendered(dag_bag.dags[dag_id], task_id, run, dry_run=dry_run)
    job = importlib.import_module(f"jobs.{task.job}")
    parsed = job.build_parser().parse_args(arguments(task))
    assert parsed.hour == SAMPLE == task.hour
    assert parsed.dry_run is dry_run


def test_an_acceptance_reaches_the_gate_as_one_argument(dag_bag: DagBag) -> None:
    reason = "Black Friday --hour 1 'really'"
    task = rendered(dag_bag.dags["hourly_features"], "validate_events", INTERVAL, accept=reason)
    assert arguments(task) == ["--hour", SAMPLE, f"--accept={reason}"]
    parser = importlib.import_module("jobs.validate_events").build_parser()
    assert parser.parse_args(arguments(task)).accept == reason


@pytest.mark.parametrize(("dag_id", "task_id", "run"), TASKS, ids=IDS)
def test_an_hour_asked_for_wins(
    dag_bag: DagBag, dag_id: str, task_id: str, run: dict[str, Any]
) -> None:
    task = rendered(dag_bag.dags[dag_id], task_id, run, hour="2026-11-09T23")
    assert task.hour == "2026-11-09T23"
    assert arguments(task)[:2] == ["--hour", "2026-11-09T23"]


def test_the_form_refuses_what_is_not_an_hour() -> None:
    param = run_params()["hour"]
    for good in (None, "2026-11-11T00", "2026-11-11T23"):
        assert param.resolve(good) == good
    for bad in ("", "2026-11-11", "2026-11-11T24", "2026-11-11T05:00", "yesterday"):
        with pytest.raises(ParamValidationError):
            param.resolve(bad)
