"""### Events to features, one hour at a time

Run `H` reads what arrived in [H, H+1h), checks it, writes the hour's samples, outcomes, sequences
and the features as of H+1h, and then announces the hour on `hour_ready` and `hour_stored`.

| task | reads | writes |
| --- | --- | --- |
| `ingest_events` | the source | `events`, `quarantine`, `users`, `items`, `rooms`, `room_items` |
| `validate_events` | `events`, `gate_results` | `gate_results`; refuses an hour that is off |
| `build_samples` | `events`, `features_*`, `behaviour` | `samples`, `outcomes`, `behaviour`, \
`sequences_*` |
| `extract_features` | `events`, `counts_*` | `counts_*`, `counts_*_day`, `features_*` |

The run's hour is the start of its data interval (its run id carries the end). Hours go in order,
one run at a time, and `build_samples` refuses an hour whose predecessor is not done.

After a failure, mend the cause, then clear `ingest_events` of the first failed run with *Future*
and *Downstream*: the hours run again in order.

`validate_events` compares the hour's nulls, ranges, volume, rates and distributions with earlier
hours, by the gates of `conf/gates.yaml`. Its button *MLflow run* shows them, also when it refused
the hour. When that hour is right all the same, trigger this DAG for that `hour` with a reason in
`accept`, then clear the runs after.

A run that is not done 30 minutes after it was queued has missed its deadline: see
`docs/runbook.md`, which has a section for every alert.
"""

from __future__ import annotations

import datetime as dt

from airflow.sdk import DAG, CronDataIntervalTimetable, Param, chain

from dags.deadlines import late
from dags.tasks import (
    DEFAULT_ARGS,
    emit_hour,
    hour_from_environment,
    hour_ready,
    hour_stored,
    job_task,
    run_params,
)

ACCEPT = Param(
    None,
    type=["null", "string"],
    minLength=1,
    title="Accept",
    description="Let the hour pass its gates all the same. The reason is kept in gate_results.",
)
ACCEPT_ARGUMENT = "{{ '--accept=' ~ params.accept if params.accept else '' }}"

# job, what else its task needs
STEPS = (
    ("ingest_events", {"pool": "light", "timeout": dt.timedelta(minutes=20)}),
    (
        "validate_events",
        {
            "pool": "light",
            "timeout": dt.timedelta(minutes=10),
            "arguments": [ACCEPT_ARGUMENT],
        },
    ),
    ("build_samples", {"pool": "spark", "timeout": dt.timedelta(minutes=40), "spark": True}),
    (
        "extract_features",
        {
            "pool": "spark",
            "timeout": dt.timedelta(minutes=40),
            "spark": True,
            "outlets": [hour_ready, hour_stored],
            "post_execute": emit_hour,
        },
    ),
)

with DAG(
    dag_id="hourly_features",
    description="Events to features, one hour at a time",
    doc_md=__doc__,
    schedule=CronDataIntervalTimetable("@hourly", timezone="UTC"),
    start_date=hour_from_environment("RANKMILL_START_HOUR", default="2026-11-11T00"),
    end_date=hour_from_environment("RANKMILL_END_HOUR"),
    catchup=True,
    # Not depends_on_past: a run that waits for a failed one keeps the only slot, so that the failed
    # one, cleared, could never start.
    max_active_runs=1,
    dagrun_timeout=dt.timedelta(hours=3),
    deadline=late(dt.timedelta(minutes=30), "RankmillHourLate"),
    default_args=DEFAULT_ARGS,
    params={**run_params(), "accept": ACCEPT},
    tags=["rankmill", "hourly", "features"],
):
    chain(*(job_task(job, **needs) for job, needs in STEPS))
