"""The few calls of Airflow's REST API (v2) that starting and following a stack takes."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Any

import requests

__all__ = ["FINISHED", "AirflowApi", "Asset", "DagRun", "Task", "hour_of_run"]

FINISHED = ("success", "failed")
HOUR_FORMAT = "%Y-%m-%dT%H"
TIMEOUT = (3, 30)  # seconds to connect and to answer


@dataclass(frozen=True)
class DagRun:
    """One run: its DAG, its id, the hour (or the day) it is for, its state."""

    dag: str
    run_id: str
    hour: str
    state: str


@dataclass(frozen=True)
class Task:
    """One task of a run; ``seconds`` is None until it has ended."""

    name: str
    state: str
    attempt: int
    seconds: float | None
    started: dt.datetime | None


@dataclass(frozen=True)
class Asset:
    """An asset's number, its name, and the DAGs that wait for it."""

    number: int
    name: str
    consumers: tuple[str, ...]


def hour_of_run(run: dict[str, Any]) -> str:
    """The hour of a run: its partition's, else its data interval's first; empty without either."""
    if run.get("partition_key"):
        return str(run["partition_key"])
    start = run.get("data_interval_start")
    return instant(start).strftime(HOUR_FORMAT) if start else ""


def instant(text: str) -> dt.datetime:
    """An ISO 8601 time of the API, in UTC."""
    return dt.datetime.fromisoformat(text).astimezone(dt.UTC)


class AirflowApi:
    """A session with one API server.

    Args:
        login: user and password; None where the simple auth manager lets every local caller in.
    """

    def __init__(self, address: str, login: tuple[str, str] | None = None) -> None:
        self.address = address
        self.login = login
        self.session = requests.Session()
        self.session.trust_env = False  # a proxy for the world has no part in a loopback call

    def call(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        """One request; signs in first, and again when the token has run out.

        Raises:
            requests.RequestException: no answer, or one that is not a success.
        """
        url = f"{self.address}/api/v2/{path}"
        if "Authorization" not in self.session.headers:
            self.sign_in()
        answer = self.session.request(method, url, timeout=TIMEOUT, **options)
        if answer.status_code == requests.codes.unauthorized:
            self.sign_in()
            answer = self.session.request(method, url, timeout=TIMEOUT, **options)
        if not answer.ok:
            raise requests.HTTPError(
                f"{method} {url}: {answer.status_code} {answer.text[:500]}", response=answer
            )
        return dict(answer.json()) if answer.content else {}

    def sign_in(self) -> None:
        """Get a token."""
        url = f"{self.address}/auth/token"
        if self.login is None:
            answer = self.session.get(url, timeout=TIMEOUT)
        else:
            body = dict(zip(("username", "password"), self.login, strict=True))
            answer = self.session.post(url, json=body, timeout=TIMEOUT)
        answer.raise_for_status()
        self.session.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def unhealthy(self) -> list[str]:
        """The parts that are not (yet) healthy: api, scheduler, dag_processor."""
        try:
            answer = self.session.get(f"{self.address}/api/v2/monitor/health", timeout=TIMEOUT)
            answer.raise_for_status()
            health = answer.json()
        except requests.RequestException:
            return ["api"]
        parts = ("metadatabase", "scheduler", "dag_processor")
        return [part for part in parts if (health.get(part) or {}).get("status") != "healthy"]

    def set_pools(self, pools: dict[str, dict[str, Any]]) -> None:
        """Create or change pools, given as in ``airflow pools import``'s file."""
        there = {pool["name"] for pool in self.call("GET", "pools?limit=100")["pools"]}
        for name, pool in pools.items():
            body = {
                "name": name,
                "slots": pool["slots"],
                "description": pool.get("description", ""),
                "include_deferred": pool.get("include_deferred", False),
            }
            if name in there:
                self.call("PATCH", f"pools/{name}", json=body)
            else:
                self.call("POST", "pools", json=body)

    def dags(self) -> dict[str, bool]:
        """{DAG id: is paused} of those that are in the folder now."""
        answer = self.call("GET", "dags?limit=100&exclude_stale=true")
        return {dag["dag_id"]: bool(dag["is_paused"]) for dag in answer["dags"]}

    def import_errors(self) -> list[str]:
        """What the DAG processor could not load, with its trace."""
        errors = self.call("GET", "importErrors?limit=20")["import_errors"]
        return [f"{error['filename']}:\n{error['stack_trace'].strip()}" for error in errors]

    def unpause(self, dag: str) -> None:
        """Let the scheduler run a DAG."""
        self.call("PATCH", f"dags/{dag}?update_mask=is_paused", json={"is_paused": False})

    def asset(self, name: str) -> Asset | None:
        """The asset of that name, where a DAG names it."""
        for asset in self.call("GET", f"assets?limit=100&name_pattern={name}")["assets"]:
            if asset["name"] == name:
                consumers = tuple(dag["dag_id"] for dag in asset["scheduled_dags"])
                return Asset(asset["id"], name, consumers)
        return None

    def has_run(self, dag: str, key: str) -> bool:
        """Whether a DAG has a run, in whatever state, of a partition."""
        path = f"dags/{dag}/dagRuns?limit=1&partition_key_prefix_pattern={key}"
        return bool(self.call("GET", path)["dag_runs"])

    def announce(self, asset: Asset, key: str) -> None:
        """An event of an asset, for one of its partitions."""
        self.call("POST", "assets/events", json={"asset_id": asset.number, "partition_key": key})

    def runs(self, dag: str) -> list[DagRun]:
        """The newest hundred runs of a DAG, oldest first."""
        answer = self.call("GET", f"dags/{dag}/dagRuns?limit=100&order_by=-run_after")
        found = [
            DagRun(dag, run["dag_run_id"], hour_of_run(run), run["state"])
            for run in answer["dag_runs"]
        ]
        return found[::-1]

    def tasks(self, run: DagRun) -> list[Task]:
        """The tasks of a run, in the order in which they started; those to come at the end."""
        path = f"dags/{run.dag}/dagRuns/{run.run_id}/taskInstances?limit=100"
        found = []
        for task in self.call("GET", path)["task_instances"]:
            started = instant(task["start_date"]) if task.get("start_date") else None
            found.append(
                Task(
                    task["task_id"],
                    task.get("state") or "waiting",
                    task.get("try_number") or 0,
                    task.get("duration") if task.get("end_date") else None,
                    started,
                )
            )
        last = dt.datetime.max.replace(tzinfo=dt.UTC)
        return sorted(found, key=lambda task: task.started or last)

    def clear_failed(self, run: DagRun) -> None:
        """Let a failed run try its failed tasks again."""
        path = f"dags/{run.dag}/dagRuns/{run.run_id}/clear"
        self.call("POST", path, json={"dry_run": False, "only_failed": True})

    def log_tail(self, run: DagRun, task: Task, lines: int = 25) -> list[str]:
        """The last lines of a task's latest attempt."""
        path = f"dags/{run.dag}/dagRuns/{run.run_id}/taskInstances/{task.name}/logs/"
        path += f"{max(task.attempt, 1)}?full_content=true"
        content = self.call("GET", path, headers={"Accept": "application/json"})["content"]
        texts = [entry if isinstance(entry, str) else entry_text(entry) for entry in content]
        found = [line for text in texts for line in text.splitlines()]
        return [line for line in found if not line.startswith("::")][-lines:]


def entry_text(entry: dict[str, Any]) -> str:
    """One structured log entry as text, an exception's own words included."""
    text = str(entry.get("event", ""))
    for error in entry.get("error_detail") or []:
        text += f"\n{error.get('exc_type')}: {error.get('exc_value')}"
    return text
