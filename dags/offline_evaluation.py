"""### Offline evaluation, every hour

Fires on `hour_ready`; the hour is the run's partition key. Scores champion and challengers on the
groups whose slower actions have become mature by now, each model only on hours it has not seen, and
appends NDCG and its interval to `evaluations` and to the MLflow run of each version.

| task | does |
| --- | --- |
| `evaluate` | scores, compares, writes the report |

It promotes nothing; a failed run is repeated by the next hour's.
"""

from __future__ import annotations

import datetime as dt

from airflow.sdk import DAG

from dags.tasks import DEFAULT_ARGS, hour_ready, job_task, on_every_hour, run_params

ARGUMENTS = ["--name", "gbdt_ranker", "--evaluation", "offline"]

with DAG(
    dag_id="offline_evaluation",
    description="NDCG of champion and challengers once slower actions are mature",
    doc_md=__doc__,
    schedule=on_every_hour(hour_ready),
    max_active_runs=1,
    dagrun_timeout=dt.timedelta(hours=2),
    default_args=DEFAULT_ARGS,
    params=run_params(),
    tags=["rankmill", "hourly", "evaluation"],
):
    job_task("evaluate", pool="training", timeout=dt.timedelta(minutes=30), arguments=ARGUMENTS)
