"""Rules that hold for every DAG file, whatever it schedules."""

from __future__ import annotations

import ast
import datetime as dt
import json
import sys
from pathlib import Path

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.sdk import (
    DAG,
    BaseOperator,
    CronDataIntervalTimetable,
    PartitionedAssetTimetable,
    RollupMapper,
    WaitForAll,
)

from dags import tasks

DAGS = Path(tasks.__file__).parent
HELPERS = [DAGS / f"{name}.py" for name in ("business_day", "deadlines", "process", "tasks")]
DAG_FILES = sorted({*DAGS.glob("*.py")} - {*HELPERS, DAGS / "__init__.py"})
HOURLY = ("hourly_features", "hourly_gbdt", "offline_evaluation", "maintenance")
"""DAGs whose runs are for an hour; that of maintenance is the first of its day."""
DAILY = ("daily_pretraining", "daily_graph_embedding")
"""DAGs that fire once per business day, when its last hour is stored."""
NAMES = (*HOURLY, *DAILY)
CONSUMERS = ("hourly_gbdt", "offline_evaluation")
"""DAGs that fire once per hour announced."""


def test_every_file_is_one_dag_without_errors(dag_bag: DagBag) -> None:
    assert dag_bag.import_errors == {}
    assert sorted(dag_bag.dags) == [path.stem for path in DAG_FILES]
    assert set(NAMES) <= set(dag_bag.dags)


@pytest.mark.parametrize("path", DAG_FILES, ids=lambda path: path.stem)
def test_a_dag_file_is_short(path: Path) -> None:
    assert len(path.read_text().splitlines()) < 100


@pytest.mark.parametrize("path", [*DAG_FILES, *HELPERS], ids=lambda path: path.stem)
def test_dag_files_import_airflow_and_the_standard_library_only(path: Path) -> None:
    tree = ast.parse(path.read_text())
    roots = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            roots |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            roots.add((node.module or "").split(".")[0])
    assert roots - set(sys.stdlib_module_names) <= {"airflow", "dags"}


@pytest.mark.parametrize("name", NAMES)
def test_a_dag_says_what_it_does_and_offers_a_form(dag_bag: DagBag, name: str) -> None:
    dag = dag_bag.dags[name]
    assert dag.doc_md is not None and dag.doc_md.startswith("### ")
    assert "| task |" in dag.doc_md
    assert all(f"`{task}`" in dag.doc_md for task in dag.task_ids)
    assert dag.description
    assert "rankmill" in dag.tags and len(dag.tags) > 1
    assert dag.dagrun_timeout is None or dag.dagrun_timeout >= dt.timedelta(hours=1)
    assert {"date" if name in DAILY else "hour", "dry_run"} <= set(dag.params)
    assert dag.max_active_runs == 1


def all_tasks(dag_bag: DagBag) -> list[tuple[DAG, BaseOperator]]:
    return [(dag, task) for dag in dag_bag.dags.values() for task in dag.tasks]


def test_every_task_is_owned_retried_bounded_and_pooled(dag_bag: DagBag) -> None:
    for dag, task in all_tasks(dag_bag):
        where = f"{dag.dag_id}.{task.task_id}"
        assert task.owner not in ("", "airflow"), where
        assert task.retries >= 1, where
        assert task.retry_exponential_backoff > 1, where
        assert task.max_retry_delay is not None, where
        assert task.execution_timeout is not None, where
        assert task.pool in tasks.POOLS, where
        links = [link.name for link in task.operator_extra_links]
        assert links == ["MLflow run", "Report"], where


def test_jobs_with_a_spark_session_never_run_side_by_side(dag_bag: DagBag) -> None:
    spark = {t.task_id for _, t in all_tasks(dag_bag) if isinstance(t, tasks.SparkJobOperator)}
    assert spark == {"build_samples", "extract_features", "build_graph"}
    assert {t.pool for _, t in all_tasks(dag_bag) if t.task_id in spark} == {"spark"}
    assert tasks.POOLS["spark"]["slots"] == 1


def test_the_pools_file_is_what_airflow_imports() -> None:
    pools = json.loads((DAGS / "pools.json").read_text())
    assert pools == tasks.POOLS
    for name, pool in pools.items():
        assert set(pool) == {"slots", "description", "include_deferred"}, name
        assert pool["slots"] >= 1, name


def test_hours_of_features_go_in_order(dag_bag: DagBag) -> None:
    dag = dag_bag.dags["hourly_features"]
    assert isinstance(dag.timetable, CronDataIntervalTimetable)
    assert dag.catchup
    # A waiting run would keep the only slot for ever, and the failed one could not be cleared.
    assert not any(task.depends_on_past for task in dag.tasks)
    assert [t.task_id for t in dag.topological_sort()] == [
        "ingest_events",
        "validate_events",
        "build_samples",
        "extract_features",
    ]
    last = dag.get_task("extract_features")
    assert {asset.name for asset in last.outlets} == {"hour_ready", "hour_stored"}


@pytest.mark.parametrize("name", CONSUMERS)
def test_a_consumer_fires_per_hour_and_a_failed_one_blocks_nothing(
    dag_bag: DagBag, name: str
) -> None:
    dag = dag_bag.dags[name]
    assert isinstance(dag.timetable, PartitionedAssetTimetable)
    assert dag.timetable.asset_condition == tasks.hour_ready
    assert not any(task.depends_on_past for task in dag.tasks)


@pytest.mark.parametrize("name", DAILY)
def test_a_daily_dag_waits_for_a_day_and_a_failed_one_blocks_nothing(
    dag_bag: DagBag, name: str
) -> None:
    dag = dag_bag.dags[name]
    assert isinstance(dag.timetable, PartitionedAssetTimetable)
    assert dag.timetable.asset_condition == tasks.hour_stored
    mapper = dag.timetable.default_partition_mapper
    assert isinstance(mapper, RollupMapper)
    assert isinstance(mapper.wait_policy, WaitForAll)
    assert not any(task.depends_on_past for task in dag.tasks)
    assert dag.dagrun_timeout is not None and dag.dagrun_timeout < dt.timedelta(days=1)


def test_the_models_of_a_day_do_not_wait_for_each_other(dag_bag: DagBag) -> None:
    dag = dag_bag.dags["daily_pretraining"]
    assert {task.task_id: task.pool for task in dag.roots} == {
        "pretrain_mmoe": "training",
        "pretrain_transformer": "training",
    }
    for model in ("mmoe", "transformer"):
        first = dag.get_task(f"pretrain_{model}")
        assert first.downstream_task_ids == {f"evaluate_{model}"}
        assert dag.get_task(f"evaluate_{model}").downstream_task_ids == {f"promote_{model}"}
    assert not any(isinstance(task, tasks.SparkJobOperator) for task in dag.tasks)


def test_an_hours_retraining_goes_before_a_days(dag_bag: DagBag) -> None:
    daily = dag_bag.dags["daily_pretraining"].tasks
    assert {(task.weight_rule, task.priority_weight) for task in daily} == {("absolute", 1)}
    train = dag_bag.dags["hourly_gbdt"].get_task("train_gbdt")
    assert (train.weight_rule, train.priority_weight) == ("downstream", 1)
    assert len(train.get_flat_relative_ids(upstream=False)) == 2, "so that it weighs 3"


def test_maintenance_runs_daily_and_makes_up_for_no_day_missed(dag_bag: DagBag) -> None:
    dag = dag_bag.dags["maintenance"]
    assert isinstance(dag.timetable, CronDataIntervalTimetable)
    assert dag.timetable.expression == "0 0 * * *"
    assert not dag.catchup, "one run does what those that were missed would have done"
    assert [(t.task_id, t.pool) for t in dag.tasks] == [("maintain", "light")]


def test_first_and_last_hour_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANKMILL_START_HOUR", "2026-11-11T05")
    monkeypatch.delenv("RANKMILL_END_HOUR", raising=False)
    start = tasks.hour_from_environment("RANKMILL_START_HOUR", default="2020-01-01T00")
    assert start == dt.datetime(2026, 11, 11, 5, tzinfo=dt.UTC)
    assert tasks.hour_from_environment("RANKMILL_END_HOUR") is None
    monkeypatch.setenv("RANKMILL_END_HOUR", "2026-11-11")
    with pytest.raises(ValueError, match=r"RANKMILL_END_HOUR='2026-11-11' is not an hour"):
        tasks.hour_from_environment("RANKMILL_END_HOUR")
