"""DAGs in Airflow's database, events of their assets, and rounds of the scheduler."""

from __future__ import annotations

from collections.abc import Sequence

from airflow.assets.manager import asset_manager
from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
from airflow.jobs.job import Job
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from airflow.models.asset import (
    AssetEvent,
    AssetModel,
    AssetPartitionDagRun,
    PartitionedAssetKeyLog,
)
from airflow.models.dag import DagModel
from airflow.models.dagbundle import DagBundleModel
from airflow.models.dagrun import DagRun
from airflow.utils.session import create_session
from sqlalchemy import delete, select, update

from tests.dags.conftest import REPOSITORY

__all__ = ["DAILY", "emit", "fired", "forget", "listen", "pause"]

DAILY = ("daily_graph_embedding", "daily_pretraining")
BUNDLE = "tests"


def listen(dags: Sequence[str] = DAILY) -> None:
    """Write the DAGs to the database, as the processor does; let ``dags`` run."""
    bag = DagBag(REPOSITORY / "dags")
    assert bag.import_errors == {}
    with create_session() as session:
        if session.get(DagBundleModel, BUNDLE) is None:
            session.add(DagBundleModel(name=BUNDLE))
    sync_bag_to_db(bag, BUNDLE, None)
    pause(False, dags)


def pause(paused: bool, dags: Sequence[str] = DAILY) -> None:
    """Pause ``dags``, or let them run."""
    with create_session() as session:
        mine = DagModel.dag_id.in_(dags)
        session.execute(update(DagModel).where(mine).values(is_paused=paused))


def forget(dags: Sequence[str] = DAILY) -> None:
    """Delete events and what they led to."""
    with create_session() as session:
        session.execute(delete(PartitionedAssetKeyLog))
        session.execute(delete(AssetPartitionDagRun))
        for run in session.scalars(select(DagRun).where(DagRun.dag_id.in_(dags))):
            session.delete(run)
        for event in session.scalars(select(AssetEvent)):
            session.delete(event)


def emit(hours: Sequence[str], name: str = "hour_stored") -> None:
    """Events of the asset ``name``, as the last task of `hourly_features` makes them."""
    with create_session() as session:
        asset = session.scalars(select(AssetModel).where(AssetModel.name == name)).one()
        for hour in hours:
            asset_manager.register_asset_change(asset=asset, partition_key=hour, session=session)


def fired() -> list[str]:
    """One round of the scheduler; the days that have a run of every daily DAG by now, and no other
    day has any."""
    scheduler = SchedulerJobRunner(job=Job())  # type: ignore[no-untyped-call]
    with create_session() as session:
        scheduler._create_dagruns_for_partitioned_asset_dags(session)
        found = [
            [str(run.partition_key) for run in session.scalars(
                select(DagRun).where(DagRun.dag_id == dag).order_by(DagRun.id)
            )]
            for dag in DAILY
        ]  # fmt: skip
    assert found[0] == found[1]
    return found[0]
