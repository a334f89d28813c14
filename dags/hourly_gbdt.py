"""### Retrain the GBDT ranker, every hour

Fires on `hour_ready`; the hour is the run's partition key. The model of run `H` is fitted on the 24
hours before H, judged on H, which it has not seen, beside the champion of that moment, and takes
the alias `champion` when it is not worse.

| task | does |
| --- | --- |
| `train_gbdt` | fits LightGBM and registers a version of `gbdt_ranker` |
| `evaluate` | NDCG, AUC and GAUC on H, with an interval against champion and popularity |
| `promote` | decides, moves the alias, keeps the decision |

A failed run changes no alias and does not block the next hour. With fewer than 24 complete hours
every task succeeds and says `skipped`. To train one hour again, trigger with `hour`: the version is
found again by its `run_key`, not made twice.

A run that is not done 30 minutes after it was queued has missed its deadline: see
`docs/runbook.md`, which has a section for every alert.
"""

from __future__ import annotations

import datetime as dt

from airflow.sdk import DAG, chain

from dags.deadlines import late
from dags.tasks import DEFAULT_ARGS, hour_ready, job_task, on_every_hour, run_params

MODEL = ["--name", "gbdt_ranker"]

# job, what else its task needs
STEPS = (
    ("train_gbdt", {"pool": "training", "timeout": dt.timedelta(minutes=45)}),
    ("evaluate", {"pool": "training", "timeout": dt.timedelta(minutes=30)}),
    ("promote", {"pool": "light", "timeout": dt.timedelta(minutes=10)}),
)

with DAG(
    dag_id="hourly_gbdt",
    description="Retrain, judge and promote the GBDT ranker, every hour",
    doc_md=__doc__,
    schedule=on_every_hour(hour_ready),
    max_active_runs=1,
    dagrun_timeout=dt.timedelta(hours=2),
    deadline=late(dt.timedelta(minutes=30), "RankmillTreesLate"),
    default_args=DEFAULT_ARGS,
    params=run_params(),
    tags=["rankmill", "hourly", "model"],
):
    chain(*(job_task(job, arguments=MODEL, **needs) for job, needs in STEPS))
