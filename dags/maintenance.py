"""### Maintenance of registry and store, every day

Keeps model versions, tables, metadata and folders from growing without end. Runs beside everything
else: readers keep what they have resolved, writers keep what they have staged, and no run loses its
fence.

| task | does |
| --- | --- |
| `maintain` | prunes versions, ages the quarantine, compacts, expires snapshots, clears leftovers |

How long things are kept is section `maintenance` of the configuration. Retention of rows and of
versions is counted from the run's hour, ages of snapshots and files from the clock. Snapshots that
a model version was trained from are kept as long as the version is. To see what a run would do,
trigger with `dry_run`. A failed or a missed run is made good by the next one.
"""

from __future__ import annotations

import datetime as dt

from airflow.sdk import DAG, CronDataIntervalTimetable

from dags.tasks import DEFAULT_ARGS, hour_from_environment, job_task, run_params

with DAG(
    dag_id="maintenance",
    description="Prune, age, compact, expire, and remove what nothing names any more",
    doc_md=__doc__,
    schedule=CronDataIntervalTimetable("@daily", timezone="UTC"),
    start_date=hour_from_environment("RANKMILL_START_HOUR", default="2026-11-11T00"),
    end_date=hour_from_environment("RANKMILL_END_HOUR"),
    catchup=False,
    max_active_runs=1,
    dagrun_timeout=dt.timedelta(hours=2),
    default_args=DEFAULT_ARGS,
    params=run_params(),
    tags=["rankmill", "daily", "maintenance"],
):
    job_task("maintain", pool="light", timeout=dt.timedelta(hours=1))
