"""Whole DAG runs over stub jobs: order, hour, summaries, links and the hours they announce."""

from __future__ import annotations

import datetime as dt
import json
import shutil
import textwrap
from pathlib import Path
from typing import Any

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.models.asset import AssetEvent
from airflow.models.dagrun import DagRun
from airflow.models.xcom import XComModel
from airflow.sdk import DAG
from airflow.sdk.execution_time.context import OutletEventAccessors
from airflow.utils.session import create_session

from dags.tasks import emit_hour
from tests.dags.conftest import REPOSITORY, without_deadline

HOUR, DAY = "2026-11-11T05", "2026-11-11"
# A manual run at logical date L covers [L - 1h, L).
LOGICAL_DATE = dt.datetime(2026, 11, 11, 6, tzinfo=dt.UTC)
JOBS = (
    "ingest_events",
    "validate_events",
    "build_samples",
    "extract_features",
    "train_gbdt",
    "evaluate",
    "promote",
    "pretrain_mmoe",
    "pretrain_transformer",
)
STUB = """
    import json, os, sys
    from pathlib import Path

    here = Path(__file__)
    with (here.parent / "calls").open("a") as file:
        file.write(json.dumps([here.stem, sys.argv[1:], os.environ["RANKMILL_RUN_ID"]]) + "\\n")
    status = here.with_suffix(".status")
    url = "http://127.0.0.1:5000/#/run/1" if "train" in here.stem else None
    print(f"[{here.stem}] at work")
    print(json.dumps({"job": here.stem, "status": "done", "mlflow_run_url": url}))
    sys.exit(int(status.read_text()) if status.exists() else 0)
"""


@pytest.fixture
def stubs(jobs_folder: Path) -> Path:
    """A jobs folder in which every job notes how it was called and succeeds."""
    for job in JOBS:
        (jobs_folder / f"{job}.py").write_text(textwrap.dedent(STUB))
    return jobs_folder


def parsed(database: Path, dag_id: str) -> DAG:  # noqa: ARG001
    """The DAG, parsed anew: it takes its jobs from the folder that is set now."""
    bag = DagBag(REPOSITORY / "dags" / f"{dag_id}.py")
    assert bag.import_errors == {}
    return without_deadline(bag.dags[dag_id])


def calls(folder: Path) -> list[tuple[str, list[str]]]:
    path = folder / "calls"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(job, arguments) for job, arguments, _ in map(json.loads, lines)]


def announced(run: DagRun) -> set[tuple[str, str | None]]:
    """Asset and partition key of the events that ``run`` made."""
    with create_session() as session:
        events = session.query(AssetEvent).filter(AssetEvent.source_run_id == run.run_id)
        return {(event.asset.name, event.partition_key) for event in events}


def xcom(run: DagRun, task_id: str, key: str) -> Any:
    with create_session() as session:
        return XComModel.deserialize_value(
            session.query(XComModel)
            .filter_by(dag_id=run.dag_id, run_id=run.run_id, task_id=task_id, key=key)
            .one()
        )


def states(run: DagRun) -> dict[str, str]:
    return {ti.task_id: str(ti.state) for ti in run.get_task_instances()}


@pytest.mark.skipif(shutil.which("java") is None, reason="spark-submit needs Java")
def test_an_hour_of_features_runs_in_order_and_is_announced(database: Path, stubs: Path) -> None:
    run = parsed(database, "hourly_features").test(
        logical_date=LOGICAL_DATE, mark_success_pattern="build_samples"
    )
    assert set(states(run).values()) == {"success"}
    jobs = ("ingest_events", "validate_events", "extract_features")
    assert calls(stubs) == [(job, ["--hour", HOUR]) for job in jobs]
    assert announced(run) == {("hour_ready", HOUR), ("hour_stored", HOUR)}
    assert xcom(run, "extract_features", "return_value")["job"] == "extract_features"


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_dry_run_announces_nothing(dag_bag: DagBag, dry_run: bool) -> None:
    task = dag_bag.dags["hourly_features"].get_task("extract_features").prepare_for_execution()
    task.period = HOUR
    events = OutletEventAccessors()
    emit_hour({"task": task, "params": {"dry_run": dry_run}, "outlet_events": events})
    expected = set() if dry_run else {HOUR}
    assert [events[asset].partition_keys for asset in task.outlets] == [expected, expected]


def test_a_gates_refusal_ends_the_run_at_the_first_try(database: Path, stubs: Path) -> None:
    (stubs / "validate_events.status").write_text("3")
    run = parsed(database, "hourly_features").test(
        logical_date=LOGICAL_DATE + dt.timedelta(hours=2)
    )
    assert states(run) == {
        "ingest_events": "success",
        "validate_events": "failed",
        "build_samples": "upstream_failed",
        "extract_features": "upstream_failed",
    }
    assert [job for job, _ in calls(stubs)] == ["ingest_events", "validate_events"]
    assert announced(run) == set()


def test_a_model_run_links_to_what_it_made(database: Path, stubs: Path) -> None:
    run = parsed(database, "hourly_gbdt").test(logical_date=None, run_conf={"hour": HOUR})
    assert set(states(run).values()) == {"success"}
    named = ["--hour", HOUR, "--name", "gbdt_ranker"]
    assert calls(stubs) == [(job, named) for job in ("train_gbdt", "evaluate", "promote")]
    assert xcom(run, "train_gbdt", "_link_MlflowRunLink") == "http://127.0.0.1:5000/#/run/1"
    assert xcom(run, "promote", "_link_MlflowRunLink") == ""
    names = {ti.task_id: ti.rendered_map_index for ti in run.get_task_instances()}
    assert set(names.values()) == {HOUR}, "the hour stands beside each task of the run"


def test_a_days_models_go_on_beside_one_that_failed(database: Path, stubs: Path) -> None:
    (stubs / "pretrain_mmoe.status").write_text("3")
    run = parsed(database, "daily_pretraining").test(logical_date=None, run_conf={"date": DAY})
    assert states(run) == {
        "pretrain_mmoe": "failed",
        "evaluate_mmoe": "upstream_failed",
        "promote_mmoe": "upstream_failed",
        "pretrain_transformer": "success",
        "evaluate_transformer": "success",
        "promote_transformer": "success",
    }
    day, judged = ["--date", DAY], ["--name", "live_transformer", "--evaluation", "daily"]
    assert [call for call in calls(stubs) if call[0] != "pretrain_mmoe"] == [
        ("pretrain_transformer", day),
        ("evaluate", [*day, *judged]),
        ("promote", [*day, *judged]),
    ]
    assert xcom(run, "pretrain_transformer", "return_value")["job"] == "pretrain_transformer"
    link = xcom(run, "pretrain_transformer", "_link_MlflowRunLink")
    assert link == "http://127.0.0.1:5000/#/run/1"
    names = {ti.task_id: ti.rendered_map_index for ti in run.get_task_instances()}
    assert names["pretrain_transformer"] == names["promote_transformer"] == DAY


def test_a_run_without_an_hour_says_how_to_name_one(database: Path, stubs: Path) -> None:
    run = parsed(database, "offline_evaluation").test(logical_date=None)
    assert states(run) == {"evaluate": "failed"}
    assert calls(stubs) == []
