"""Airflow's processes load this from ``AIRFLOW__CORE__PLUGINS_FOLDER``: what fires a daily DAG."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from dags.business_day import BusinessDay, HoursOfDay

__all__ = ["RankmillPlugin"]


class RankmillPlugin(AirflowPlugin):
    """Registers what DAGs here are scheduled by, so that the scheduler can read it."""

    name = "rankmill"
    partition_mappers = [BusinessDay]  # noqa: RUF012
    windows = [HoursOfDay]  # noqa: RUF012
