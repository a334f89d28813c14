"""What every DAG here shares: the operator factory, the assets, the pools, the period of a run.

A task is one job, ``jobs/NAME.py``, in a process group of its own. `job_task` makes it: with
``spark=True`` through ``spark-submit`` (the job makes a Spark session), else as a plain Python
process, which starts ninety times as fast. Both stream the job's output to the task log, end the
whole group when the task ends for whatever reason, and read the JSON summary that the job prints
last: it becomes the task's XCom.

Exit statuses of a job: 0 done; 2 bad arguments or configuration and 3 refused by a gate, neither of
which a retry can mend; anything else is retried.
"""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import signal
import sys
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow.providers.apache.spark.operators.spark_submit import SparkSubmitOperator
from airflow.sdk import (
    Asset,
    BaseOperator,
    BaseOperatorLink,
    Context,
    Param,
    PartitionedAssetTimetable,
    RollupMapper,
    StartOfHourMapper,
)
from airflow.sdk.exceptions import AirflowException, AirflowFailException, AirflowNotFoundException

from dags.business_day import HOUR_FORMAT, BusinessDay, HoursOfDay, zone_from_environment
from dags.process import JobProcess

__all__ = [
    "DATE",
    "DEFAULT_ARGS",
    "HOUR",
    "POOLS",
    "Period",
    "emit_hour",
    "hour_from_environment",
    "hour_ready",
    "hour_stored",
    "job_task",
    "on_every_day",
    "on_every_hour",
    "run_params",
]

DAGS_FOLDER = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Period:
    """What a run is for, an hour or a day.

    Attributes:
        name: of the run's parameter, and of the job's option without its dashes.
        template: the one asked for, else that of the run itself; empty without either.
        pattern: a regular expression of what may be asked for.
        example: shown where one is missing.
        description: of the parameter.
    """

    name: str
    template: str
    pattern: str
    example: str
    description: str


# A run's own hour is the partition that fired it, else the first of its data interval.
HOUR = Period(
    name="hour",
    template="{{ params.hour or partition_key or (data_interval_start.strftime('"
    + HOUR_FORMAT
    + "') if data_interval_start is defined and data_interval_start else '') }}",
    pattern=r"^\d{4}-\d{2}-\d{2}T([01]\d|2[0-3])$",
    example="2026-11-11T05",
    description="Start of the hour, UTC, as 2026-11-11T05. Empty: the run's own hour.",
)
DATE = Period(
    name="date",
    template="{{ params.date or partition_key or '' }}",
    pattern=r"^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])$",
    example="2026-11-11",
    description="Business day in the source's time zone, as 2026-11-11. Empty: the run's own day.",
)
DRY_RUN = "{{ '--dry-run' if params.dry_run else '' }}"

# `airflow pools import dags/pools.json` makes them. Memory-hungry tasks never share a slot.
POOLS: dict[str, dict[str, Any]] = json.loads((DAGS_FOLDER / "pools.json").read_text())

hour_ready = Asset(name="hour_ready", group="rankmill")
hour_stored = Asset(name="hour_stored", group="rankmill")

DEFAULT_ARGS: dict[str, Any] = {
    "owner": "rankmill",
    "retries": 2,
    "retry_delay": dt.timedelta(seconds=30),
    "retry_exponential_backoff": 2.0,
    "max_retry_delay": dt.timedelta(minutes=10),
}

_SPARK_LEVEL = re.compile(r"\d\d/\d\d/\d\d \d\d:\d\d:\d\d (WARN|ERROR|FATAL) ")
_SECRET_PREFIXES = ("AIRFLOW__", "AIRFLOW_CONN_", "AIRFLOW_VAR_")
_NOT_RETRIED = {2: "was given bad arguments or configuration", 3: "was refused by a gate"}
_TAIL_LINES = 20


def hour_from_environment(name: str, default: str | None = None) -> dt.datetime | None:
    """The first instant of the hour that variable ``name`` holds, or of ``default``.

    Raises:
        ValueError: when the variable holds something else.
    """
    text = os.environ.get(name) or default
    if text is None:
        return None
    try:
        return dt.datetime.strptime(text, HOUR_FORMAT).replace(tzinfo=dt.UTC)
    except ValueError as error:
        raise ValueError(f"{name}={text!r} is not an hour; write it as 2026-11-11T05") from error


def run_params(of: Period = HOUR) -> dict[str, Param]:
    """The form of a run started by hand. New objects each time: a Param keeps its last value."""
    return {
        of.name: Param(
            None,
            type=["null", "string"],
            pattern=of.pattern,
            title=of.name.capitalize(),
            description=of.description,
        ),
        "dry_run": Param(
            False,
            type="boolean",
            title="Dry run",
            description="Compute and report, but commit, register and announce nothing.",
        ),
    }


def on_every_hour(asset: Asset) -> PartitionedAssetTimetable:
    """Fire once for each hour that ``asset`` announces; the hour is the run's partition key."""
    mapper = StartOfHourMapper(input_format=HOUR_FORMAT, output_format=HOUR_FORMAT)
    return PartitionedAssetTimetable(assets=asset, default_partition_mapper=mapper)


def on_every_day(asset: Asset) -> PartitionedAssetTimetable:
    """Fire once for each business day, when ``asset`` has announced all of its hours.

    The day is the run's partition key. Its time zone is that of RANKMILL_TIME_ZONE.
    """
    day, hours = BusinessDay(zone_from_environment()), HoursOfDay()
    # Airflow takes the scheduler's own classes here too, though the types do not say so.
    mapper = RollupMapper(upstream_mapper=day, window=hours)  # type: ignore[arg-type]
    return PartitionedAssetTimetable(assets=asset, default_partition_mapper=mapper)


def emit_hour(context: Context, result: object = None) -> None:  # noqa: ARG001
    """Announce the task's hour as a partition of each of its outlets (a ``post_execute`` hook)."""
    if context["params"]["dry_run"]:
        return
    task = context["task"]
    for asset in task.outlets:
        context["outlet_events"][asset].add_partitions(task.period)


class MlflowRunLink(BaseOperatorLink):
    """The button that opens the MLflow run which the task's job wrote."""

    name = "MLflow run"

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:  # noqa: ARG002
        """The address from the job's summary; empty, and the button disabled, without one."""
        return getattr(operator, "mlflow_run_url", None) or ""


class ReportLink(BaseOperatorLink):
    """The button that opens the report which the task's job logged, where it logs one."""

    name = "Report"

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:  # noqa: ARG002
        """The address from the job's summary; empty, and the button disabled, without one."""
        return getattr(operator, "report_url", None) or ""


class _JobMixin:
    """Runs one job's command for an operator: log, summary, exit status, and a certain end."""

    operator_extra_links = (MlflowRunLink(), ReportLink())
    job: str
    of: Period
    period: str
    mlflow_run_url: str | None = None
    report_url: str | None = None
    _running: JobProcess | None = None

    def run_job(
        self, context: Context, command: Sequence[str], environment: Mapping[str, str] | None = None
    ) -> dict[str, Any] | None:
        """Run ``command`` to its end and return its summary; ``environment`` are its defaults.

        Raises:
            AirflowFailException: exit status 2 or 3, or no hour or day to run; not retried.
            AirflowException: any other exit status but 0; retried.
        """
        if not self.period:
            name = self.of.name
            raise AirflowFailException(
                f"This run has no {name}: trigger it with the parameter `{name}`, "
                f"e.g. {self.of.example}"
            )
        summary: dict[str, Any] = {}
        tail: deque[str] = deque(maxlen=_TAIL_LINES)

        def line(text: str) -> None:
            self._log_line(text)
            if text:
                tail.append(text)
            summary.update(_as_summary(text))

        self._running = JobProcess(command, {**(environment or {}), **_environment(context)}, line)
        status = self._running.wait()
        self.mlflow_run_url = summary.get("mlflow_run_url")
        self.report_url = summary.get("report_url")
        if status:
            raise _failure(self.job, self.period, status, summary.get("message"), tail)
        if not summary:
            self.log.warning("%s printed no summary; its XCom is empty", self.job)
        return summary or None

    def on_kill(self) -> None:
        """End the job's whole process group."""
        if self._running is not None:
            self._running.stop()

    def _log_line(self, text: str) -> None:
        match = _SPARK_LEVEL.match(text)
        level = match.group(1) if match else ""
        log = {"WARN": self.log.warning, "ERROR": self.log.error, "FATAL": self.log.error}
        log.get(level, self.log.info)("%s", text)


class JobOperator(_JobMixin, BaseOperator):
    """A job that makes no Spark session, as a plain Python process."""

    template_fields = ("period", "arguments")
    ui_color = "#e8f1fb"

    def __init__(
        self,
        *,
        job: str,
        application: str,
        arguments: Sequence[str],
        of: Period = HOUR,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.job = job
        self.application = application
        self.arguments = list(arguments)
        self.of = of
        self.period = of.template

    def render_template_fields(self, context: Context, jinja_env: Any = None) -> None:
        """Render, then drop the arguments that this run does not use (rendered empty)."""
        super().render_template_fields(context, jinja_env)
        self.arguments = [argument for argument in self.arguments if argument]

    def execute(self, context: Context) -> dict[str, Any] | None:
        """Run the job and return its summary."""
        return self.run_job(context, [sys.executable, self.application, *self.arguments])


class SparkJobOperator(_JobMixin, SparkSubmitOperator):
    """A job that makes a Spark session, through the ``spark-submit`` of this environment."""

    template_fields = (*SparkSubmitOperator.template_fields, "period")
    ui_color = "#fdeedd"

    def __init__(
        self, *, job: str, arguments: Sequence[str], of: Period = HOUR, **kwargs: Any
    ) -> None:
        super().__init__(application_args=list(arguments), name=f"{job} {of.template}", **kwargs)
        self.job = job
        self.of = of
        self.period = of.template

    def render_template_fields(self, context: Context, jinja_env: Any = None) -> None:
        """Render, then drop the arguments that this run does not use (rendered empty)."""
        super().render_template_fields(context, jinja_env)
        self.application_args = [argument for argument in self.application_args if argument]

    def execute(self, context: Context) -> dict[str, Any] | None:
        """Submit the job, wait for it and return its summary."""
        hook = self._get_hook()
        try:
            hook.get_connection(self._conn_id)
        except AirflowNotFoundException as error:
            raise AirflowFailException(
                f"There is no Airflow connection {self._conn_id!r} to name the Spark master; set "
                'AIRFLOW_CONN_SPARK_DEFAULT=\'{"conn_type": "spark", "host": "local[*]"}\''
            ) from error
        if hook._connection["deploy_mode"] == "cluster":
            raise AirflowFailException(
                f"Connection {self._conn_id!r} asks for deploy mode 'cluster'; use 'client': "
                "a job's exit status and summary are read from its driver"
            )
        command = hook._build_spark_submit_command(self.application)
        command[0] = str(Path(sys.executable).with_name(command[0]))
        python = {"PYSPARK_PYTHON": sys.executable, "PYSPARK_DRIVER_PYTHON": sys.executable}
        local = hook._connection["master"].startswith("local")
        return self.run_job(
            context, command, python | ({"SPARK_LOCAL_IP": "127.0.0.1"} if local else {})
        )


def job_task(
    job: str,
    *,
    pool: str,
    timeout: dt.timedelta,
    of: Period = HOUR,
    spark: bool = False,
    arguments: Sequence[str] = (),
    **kwargs: Any,
) -> BaseOperator:
    """The task that runs ``jobs/JOB.py`` for the hour, or with ``of=DATE`` the day, of the run.

    ``arguments`` follow ``--hour`` or ``--date`` and are templates; one that renders empty is left
    out. Further keywords (``outlets``, ``post_execute``, ``task_id``) go to the operator.
    """
    folder = os.environ.get("RANKMILL_JOBS_DIR") or DAGS_FOLDER.parent / "jobs"
    operator = SparkJobOperator if spark else JobOperator
    return operator(
        job=job,
        application=str(Path(folder) / f"{job}.py"),
        arguments=[f"--{of.name}", of.template, DRY_RUN, *arguments],
        of=of,
        pool=pool,
        execution_timeout=timeout,
        map_index_template=of.template,
        **({"conf": {"spark.log.level": "WARN"}} if spark else {}),
        **{"task_id": job, **kwargs},
    )


def _as_summary(line: str) -> dict[str, Any]:
    """The summary that ``line`` is, or nothing."""
    if not line.startswith("{"):
        return {}
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) and "job" in value else {}


def _environment(context: Context) -> dict[str, str]:
    """This process's environment for a job: without Airflow's own secrets, with the run's token."""
    ti = context["ti"]
    kept = {n: v for n, v in os.environ.items() if not n.startswith(_SECRET_PREFIXES)}
    return kept | {"RANKMILL_RUN_ID": f"{ti.run_id}#{ti.try_number}", "PYTHONUNBUFFERED": "1"}


def _failure(
    job: str, period: str, status: int, message: str | None, tail: Sequence[str]
) -> AirflowException:
    how = f"ended by {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
    what = _NOT_RETRIED.get(status, "failed")
    text = f"{job} of {period} {what} ({how})" + (f": {message}" if message else "")
    text = "\n".join([text, "Its last lines:", *tail])
    return AirflowFailException(text) if status in _NOT_RETRIED else AirflowException(text)
