"""A Spark worker, and Airflow's scheduler, that are gone in the middle."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator

from local.airflow_api import FINISHED, AirflowApi, DagRun
from tests.faults.hourly import JOBS
from tests.faults.small_store import SmallStore
from tests.faults.trials import NOTHING, Dealt, Trial
from tests.faults.victim import Victim
from tests.faults.worlds import Airflow, SparkCluster

__all__ = ["scheduler_killed", "worker_killed"]

PATIENCE_S = 1200
"""How long a run of the hour may take: Airflow notices what a dead scheduler ran after minutes."""


def worker_killed(store: SmallStore, trial: Trial, at: float) -> Dealt:
    """SIGKILL to one of two workers with its executors; another one joins when the job ended."""
    world = store.world
    assert isinstance(world, SparkCluster)

    @contextlib.contextmanager
    def away(_victim: Victim) -> Iterator[str]:
        world.kill_worker()
        try:
            yield "worker"
        finally:
            world.start_worker()

    return store.meet(trial, at, away)


def scheduler_killed(store: SmallStore, trial: Trial, _at: float) -> Dealt:
    """SIGKILL to the scheduler's process in the middle of the hour's DAG run, and started again:
    the run ends, and every task has succeeded, once."""
    world, run = store.world, store.run
    assert isinstance(world, Airflow)
    for job in reversed(JOBS):
        if job.name in _TASKS:
            job.withdraw(run)
    api = run.services.airflow
    _begin(api)
    _wait(api, lambda found: found.state == "running", 120)
    time.sleep(trial.moment * sum(store.seconds[name] for name in _TASKS))
    struck = NOTHING
    if _run(api).state not in FINISHED:
        scheduler = run.services.running.pop("airflow-scheduler")
        scheduler.kill()
        scheduler.wait()
        struck = "scheduler"
        world.start_scheduler()
    following = _wait(api, lambda found: found.state in FINISHED, PATIENCE_S)
    states = Counter((task.name, task.state) for task in api.tasks(following))
    assert states == Counter((name, "success") for name in _TASKS), states
    return Dealt(struck, 0, str(api.tasks(following)))


_TASKS = ("ingest_events", "validate_events", "build_samples", "extract_features")


def _begin(api: AirflowApi) -> None:
    """Let Airflow run the one hour that it schedules, for the first time or again."""
    if api.dags()[Airflow.DAG]:
        api.unpause(Airflow.DAG)
        _wait(api, lambda _: True, 120)
        return
    path = f"dags/{Airflow.DAG}/dagRuns/{_run(api).run_id}/clear"
    api.call("POST", path, json={"dry_run": False, "only_failed": False})
    _wait(api, lambda found: found.state not in FINISHED, 120)


def _run(api: AirflowApi) -> DagRun:
    [found] = api.runs(Airflow.DAG)
    return found


def _wait(api: AirflowApi, wanted: Callable[[DagRun], bool], seconds: float) -> DagRun:
    """The one run of the hour, once it is as ``wanted``."""
    deadline = time.monotonic() + seconds
    while True:
        found = api.runs(Airflow.DAG)
        if found and wanted(found[0]):
            return found[0]
        assert time.monotonic() < deadline, f"{found} after {seconds} s"
        time.sleep(1)
