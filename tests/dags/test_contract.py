"""Every task's rendered arguments are arguments of its own job."""

from __future__ import annotations

import datetime as dt
import importlib
from typing import Any

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import DAG, BaseOperator
from airflow.sdk.exceptions import ParamValidationError

from dags.tasks import DATE, HOUR, Period, SparkJobOperator, run_params

SAMPLE = "2026-11-11T05"
INTERVAL = {
    "partition_key": None,
    "data_interval_start": dt.datetime(2026, 11, 11, 5, tzinfo=dt.UTC),
}
PARTITION: dict[str, Any] = {"partition_key": SAMPLE}
SAMPLE_DAY = "2026-11-11"
DAY: dict[str, Any] = {"partition_key": SAMPLE_DAY}

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
    ("daily_pretraining", "pretrain_mmoe", DAY),
    ("daily_pretraining", "evaluate_mmoe", DAY),
    ("daily_pretraining", "promote_mmoe", DAY),
    ("daily_pretraining", "pretrain_transformer", DAY),
    ("daily_pretraining", "evaluate_transformer", DAY),
    ("daily_pretraining", "promote_transformer", DAY),
    ("daily_graph_embedding", "build_graph", DAY),
    ("daily_graph_embedding", "embed_graph", DAY),
    ("daily_graph_embedding", "promote", DAY),
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
    wanted = SAMPLE_DAY if run is DAY else SAMPLE
    assert getattr(parsed, task.of.name) == wanted == task.period
    assert parsed.dry_run is dry_run


@pytest.mark.parametrize(
    ("model", "name"), [("mmoe", "mmoe_ranker"), ("transformer", "live_transformer")]
)
def test_a_days_models_are_judged_under_their_names(dag_bag: DagBag, model: str, name: str) -> None:
    dag = dag_bag.dags["daily_pretraining"]
    day = ["--date", SAMPLE_DAY]
    assert arguments(rendered(dag, f"pretrain_{model}", DAY)) == day
    for job in ("evaluate", "promote"):
        task = rendered(dag, f"{job}_{model}", DAY)
        assert (task.job, arguments(task)) == (job, [*day, "--name", name, "--evaluation", "daily"])


def test_an_acceptance_reaches_the_gate_as_one_argument(dag_bag: DagBag) -> None:
    reason = "Black Friday --hour 1 'really'"
    task = rendered(dag_bag.dags["hourly_features"], "validate_events", INTERVAL, accept=reason)
    assert arguments(task) == ["--hour", SAMPLE, f"--accept={reason}"]
    parser = importlib.import_module("jobs.validate_events").build_parser()
    assert parser.parse_args(arguments(task)).accept == reason


@pytest.mark.parametrize(("dag_id", "task_id", "run"), TASKS, ids=IDS)
def test_what_is_asked_for_wins(
    dag_bag: DagBag, dag_id: str, task_id: str, run: dict[str, Any]
) -> None:
    of, wanted = (DATE, "2026-11-09") if run is DAY else (HOUR, "2026-11-09T23")
    task = rendered(dag_bag.dags[dag_id], task_id, run, **{of.name: wanted})
    assert task.period == wanted
    assert arguments(task)[:2] == [f"--{of.name}", wanted]


@pytest.mark.parametrize(
    ("of", "good", "bad"),
    [
        (
            HOUR,
            ("2026-11-11T00", "2026-11-11T23"),
            ("2026-11-11", "2026-11-11T24", "2026-11-11T05:00", "yesterday"),
        ),
        (
            DATE,
            ("2026-11-11", "2026-01-31"),
            ("2026-11-11T05", "2026-13-01", "2026-11-32", "2026-00-10", "20261111", "yesterday"),
        ),
    ],
    ids=["hour", "date"],
)
def test_the_form_refuses_what_is_not_of_its_kind(
    of: Period, good: tuple[str, ...], bad: tuple[str, ...]
) -> None:
    param = run_params(of)[of.name]
    assert of.example in good or param.resolve(of.example)
    for value in (None, *good):
        assert param.resolve(value) == value
    for value in ("", *bad):
        with pytest.raises(ParamValidationError):
            param.resolve(value)
