"""### Pre-train the deep rankers, every day

Fires once, when the last hour of a business day is announced on `hour_stored` and all others were
before (24 of 24; the day's time zone is the source's). The day is the run's partition key. The
models of day `D` are fitted on the days before D and judged on D, which they have not seen, beside
the champion of that moment; a model takes the alias `champion` when it is not worse. Systems
downstream fine-tune from it.

| task | does |
| --- | --- |
| `pretrain_mmoe` | fits the multi-task ranker and registers a version of `mmoe_ranker` |
| `evaluate_mmoe`, `promote_mmoe` | judge it on D; decide, move the alias, keep the decision |
| `pretrain_transformer` | fits the ranker of live rooms and registers a version of \
`live_transformer` |
| `evaluate_transformer`, `promote_transformer` | the same for it |

The two models do not wait for each other's success, and a failed day changes no alias and does not
block the next. Without a complete day before D every task succeeds and says `skipped`. To train one
day again, trigger with `date`: the version is found again by its `run_key`, not made twice.
"""

from __future__ import annotations

import datetime as dt

from airflow.sdk import DAG, chain

from dags.tasks import DATE, DEFAULT_ARGS, hour_stored, job_task, on_every_day, run_params

# job that fits it, registered name
MODELS = (
    ("pretrain_mmoe", "mmoe_ranker"),
    ("pretrain_transformer", "live_transformer"),
)

with DAG(
    dag_id="daily_pretraining",
    description="Pre-train, judge and promote the deep rankers, every day",
    doc_md=__doc__,
    schedule=on_every_day(hour_stored),
    max_active_runs=1,
    dagrun_timeout=dt.timedelta(hours=12),
    # Each task weighs 1: of those that wait for the pool, an hour's retraining goes first.
    default_args={**DEFAULT_ARGS, "weight_rule": "absolute"},
    params=run_params(DATE),
    tags=["rankmill", "daily", "model"],
):
    for pretrain, name in MODELS:
        model = pretrain.removeprefix("pretrain_")
        judged = ["--name", name, "--evaluation", "daily"]
        chain(
            job_task(pretrain, of=DATE, pool="training", timeout=dt.timedelta(hours=4)),
            job_task(
                "evaluate",
                task_id=f"evaluate_{model}",
                of=DATE,
                arguments=judged,
                pool="training",
                timeout=dt.timedelta(hours=1),
            ),
            job_task(
                "promote",
                task_id=f"promote_{model}",
                of=DATE,
                arguments=judged,
                pool="light",
                timeout=dt.timedelta(minutes=10),
            ),
        )
