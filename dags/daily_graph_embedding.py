"""### Embed the graph of users, rooms and products, every day

Fires once, when the last hour of a business day is announced on `hour_stored` and all others were
before (24 of 24; the day's time zone is the source's). The day is the run's partition key. The
vectors of day `D` know what arrived up to its end and serve from the next hour on.

| task | does |
| --- | --- |
| `build_graph` | weighted, typed edges of the days that end with D, committed to `edges` |
| `embed_graph` | metapath2vec from the vectors of the day before, turned back onto their axes; \
commits `node_embeddings` and registers a version of `metapath2vec` |
| `promote` | loads the version in a fresh process and moves the alias; never back in data time |

A day's report (degrees, neighbours, drift against the day before, a map of the items) is in MLflow,
on the page of its run. A failed day changes no alias and does not block the next, which then starts
from the newest vectors before it. To make one day again, trigger with `date`: the same edges give
the same vectors, and the version is found again by its `run_key`, not made twice.
"""

from __future__ import annotations

import datetime as dt

from airflow.sdk import DAG, chain

from dags.tasks import DATE, DEFAULT_ARGS, hour_stored, job_task, on_every_day, run_params

with DAG(
    dag_id="daily_graph_embedding",
    description="Build, embed and register the graph of a day",
    doc_md=__doc__,
    schedule=on_every_day(hour_stored),
    max_active_runs=1,
    dagrun_timeout=dt.timedelta(hours=12),
    # As in daily_pretraining: of those that wait for a pool, an hour's tasks go first.
    default_args={**DEFAULT_ARGS, "weight_rule": "absolute"},
    params=run_params(DATE),
    tags=["rankmill", "daily", "model"],
):
    chain(
        job_task("build_graph", of=DATE, spark=True, pool="spark", timeout=dt.timedelta(hours=2)),
        job_task("embed_graph", of=DATE, pool="training", timeout=dt.timedelta(hours=4)),
        job_task(
            "promote",
            of=DATE,
            arguments=["--name", "metapath2vec"],
            pool="light",
            timeout=dt.timedelta(minutes=10),
        ),
    )
