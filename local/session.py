"""The steps that bring a stack up and let Airflow run its hours, each done once per folder."""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass
from typing import Any

from local.airflow_api import AirflowApi, DagRun
from local.announce import announce
from local.commands import Command, run_commands
from local.database import Database
from local.days import Day, last_full_day, unannounced
from local.follow import CONSUMERS, DAGS, DAILY, FEATURES, Board, follow
from local.processes import ProcessFile
from local.record import Record, data_fingerprint, tool_versions, watched_hours
from local.screen import Screen, Step
from local.services import Services
from local.settings import database_uri, environment
from local.stack import LocalError, Ports, Stack
from local.versions import read_versions, version_table

__all__ = ["Session", "Span", "process_file"]


def process_file(stack: Stack) -> ProcessFile:
    """Where the processes of ``stack`` are written down."""
    return ProcessFile(stack.state / "processes.json", stack.mark)


_DEMO_START = "2026-11-08T16"
"""72 hours from here are three business days of the simulated marketplace, the last one complete
with the hours left to Airflow."""


@dataclass(frozen=True)
class Span:
    """The hours of a source.

    Attributes:
        first, before: the first and the last hour to bootstrap.
        hours: those left to Airflow.
        time_zone: of the source's business days.
    """

    first: str
    before: str
    hours: tuple[str, ...]
    time_zone: str

    @property
    def day(self) -> Day | None:
        """The last day that is complete when Airflow has run its hours."""
        return last_full_day(self.first, self.hours[-1], self.time_zone)

    @property
    def unannounced(self) -> list[str]:
        """The hours of a bootstrap that daily DAGs wait for."""
        return unannounced(self.first, self.before, self.hours[-1], self.time_zone)


class Session:
    """One stack while it is being brought up, worked with and served."""

    def __init__(self, stack: Stack, screen: Screen, ports: Ports) -> None:
        self.stack = stack
        self.screen = screen
        self.ports = ports
        self.file = process_file(stack)
        self.record = Record(stack)
        self.services = Services(stack, ports, self.file)
        self.env = environment(stack, ports)

    def start_database(self) -> None:
        """PostgreSQL with its three databases."""
        with self.screen.step("PostgreSQL") as step:
            folder = self.stack.state / "postgres"
            database = Database(folder, self.stack.short_folder, self.services.log("postgres"))
            self.services.running["postgres"] = database.start(self.file, self.env)
            step.note = "databases airflow, mlflow, catalog"

    def prepare(self) -> None:
        """Tables of Airflow and MLflow, and the event log: side by side, each only once.

        MLflow's server, started here too, makes its own tables in an empty database.
        """
        versions = tool_versions()
        known = self.record.get("versions") or {}
        commands = []
        mlflow_old = known.get("mlflow") not in (None, versions["mlflow"])
        if mlflow_old:
            uri = database_uri(self.stack, "mlflow")
            commands.append(
                self.tool("MLflow's tables", "mlflow-migrate", "mlflow", "db", "upgrade", uri)
            )
        else:
            self.services.start_mlflow(self.env)
        if known.get("apache-airflow-core") != versions["apache-airflow-core"]:
            commands.append(
                self.tool("Airflow's tables", "airflow-migrate", "airflow", "db", "migrate")
            )
        if self.stack.simulated and not self.record.get("data"):
            folder = self.stack.state / "data"
            shutil.rmtree(folder, ignore_errors=True)
            commands.append(
                self.job(
                    "simulated event log",
                    "simulate_events",
                    "--out",
                    str(folder),
                    "--start",
                    _DEMO_START,
                )
            )
        self.run(*commands)
        if mlflow_old:
            self.services.start_mlflow(self.env)

    def wait_mlflow(self) -> None:
        """The tracking server answers."""
        with self.screen.step("MLflow server") as step:
            self.services.wait(self.services.mlflow_ready, "MLflow", 120)
            step.note = self.services.mlflow_address
        self.record.put("versions", tool_versions())

    def find_hours(self) -> Span:
        """The hours to bootstrap and those for Airflow; asks the source once.

        Raises:
            LocalError: when this folder was filled from other data.
        """
        mark = data_fingerprint(self.stack)
        known = self.record.get("data")
        if known and known["fingerprint"] != mark:
            raise LocalError(
                f"{self.stack.state} was made from other data ({known['path']}, or its files have "
                f"changed). Keep it, and the data, or start anew with: "
                f"make clean STATE=yes SOURCE={self.stack.source}"
            )
        if not known or "time_zone" not in known:
            [result] = self.run(self.job("hours of the source", "ingest_events", "--span"))
            if len(result.get("hours") or []) != 2:
                raise LocalError(f"ingest_events --span named no hours; it said {result}")
            known = {
                "fingerprint": mark,
                "path": str(self.stack.data_folder),
                "span": result["hours"],
                "time_zone": result["details"]["time_zone"],
            }
            self.record.put("data", known)
        first, last = known["span"]
        before, hours = watched_hours(first, last)
        return Span(first, before, tuple(hours), known["time_zone"])

    def bootstrap(self, first: str, last: str) -> None:
        """All hours before Airflow's, in one Spark session; once."""
        if self.record.get("bootstrap") == [first, last]:
            self.screen.say(f"    {first} to {last} are in the tables already", style="dim")
            return
        script = str(self.stack.root / "jobs" / "bootstrap.py")
        hours = ("--from-hour", first, "--to-hour", last)
        master = self.env["RANKMILL_SPARK_MASTER"]
        submit = (str(self.stack.bin / "spark-submit"), "--master", master)
        self.run(Command(f"bootstrap {first} to {last}", "bootstrap", (*submit, script, *hours)))
        self.record.put("bootstrap", [first, last])

    def wait_airflow(self, span: Span) -> None:
        """Airflow healthy, its pools there, its DAGs loaded and running, told of the bootstrap."""
        api = self.services.airflow
        with self.screen.step("Airflow") as step:
            self.services.wait(self.services.airflow_ready, "Airflow", 180)
            pools = self.stack.root / "dags" / "pools.json"
            if pools.exists():
                api.set_pools(json.loads(pools.read_text()))
            self.wait_dags(api)
            # Consumers first: an hour that is announced before they listen is lost on them.
            for dag in (*CONSUMERS, *DAILY):
                api.unpause(dag)
            announce(api, self.unannounced(span), span.time_zone)
            api.unpause(FEATURES)
            step.note = f"http://127.0.0.1:{self.ports.airflow}"

    def unannounced(self, span: Span) -> list[str]:
        """The bootstrap's hours; of Airflow's, those done before the daily DAGs may have heard."""
        runs = self.services.airflow.runs(FEATURES)
        done = [run.hour for run in runs if run.state == "success" and run.hour in span.hours]
        return [*span.unannounced, *done]

    def wait_dags(self, api: AirflowApi) -> None:
        """Wait for the DAGs that a run follows.

        Raises:
            LocalError: with the import errors, when one does not load within 90 s.
        """
        wanted = set(DAGS)
        deadline = time.monotonic() + 90
        while not wanted <= set(api.dags()):
            self.services.check()
            errors = api.import_errors()
            if errors or time.monotonic() > deadline:
                missing = ", ".join(sorted(wanted - set(api.dags())))
                words = "\n".join(errors) or f"see {self.stack.logs}/airflow-dag-processor.log"
                raise LocalError(f"Airflow did not load {missing}: {words}")
            time.sleep(0.5)

    def watch(self, span: Span) -> Board:
        """Let Airflow run its hours and the day, and show the log of what failed."""
        api, hours, day = self.services.airflow, span.hours, span.day
        self.retry_failed(api, Board(hours, day))
        begun = time.monotonic()
        board = follow(api, hours, day, self.screen, self.services.check)
        failed = board.failed()
        note = f"{len(board.runs)} runs, {len(failed)} failed"
        seconds = time.monotonic() - begun
        title = f"{len(hours)} hours{' and a day' if day else ''} on Airflow"
        self.screen.done(Step(title, note, seconds, good=not failed))
        for run in failed:
            self.show_failure(api, run)
        return board

    def retry_failed(self, api: AirflowApi, board: Board) -> None:
        """What failed in an earlier run is tried again."""
        for dag in DAGS:
            for run in api.runs(dag):
                if board.holds(run) and run.state == "failed":
                    self.screen.say(f"    trying again what failed before: {dag} {run.hour}")
                    api.clear_failed(run)

    def show_failure(self, api: AirflowApi, run: DagRun) -> None:
        """The last log lines of the failed tasks of ``run``."""
        for task in api.tasks(run):
            if task.state == "failed":
                self.screen.say(f"\n✘ {run.dag}.{task.name} failed for {run.hour}:", "bold red")
                for line in api.log_tail(run, task):
                    self.screen.say(f"    {line}")

    def finish(self) -> None:
        """The table of versions, the times, the addresses."""
        self.screen.console.print()
        self.screen.console.print(version_table(read_versions(self.services.mlflow_address)))
        self.screen.console.print(self.screen.timings())
        self.screen.say(f"\n  Airflow  http://127.0.0.1:{self.ports.airflow}", "bold")
        self.screen.say(f"  MLflow   {self.services.mlflow_address}/#/models", "bold")

    def tool(self, title: str, name: str, command: str, *arguments: str) -> Command:
        """A step that is one of the environment's commands."""
        return Command(title, name, (str(self.stack.bin / command), *arguments))

    def job(self, title: str, name: str, *arguments: str) -> Command:
        """A step that is one of the jobs."""
        script = str(self.stack.root / "jobs" / f"{name}.py")
        return Command(title, name, (str(self.stack.bin / "python"), script, *arguments))

    def run(self, *commands: Command) -> list[dict[str, Any]]:
        """Run steps side by side; their summaries."""
        if not commands:
            return []
        arguments = (self.stack, self.env, self.file, self.screen, self.services.check)
        return run_commands(commands, *arguments)

    def bring_up(self) -> Span:
        """Everything until Airflow may run its hours, which are returned."""
        self.start_database()
        self.prepare()
        span = self.find_hours()
        ends = span.hours[0], span.hours[-1]
        self.env = environment(self.stack, self.ports, ends, span.time_zone)
        self.services.start_airflow(self.env)
        self.wait_mlflow()
        self.bootstrap(span.first, span.before)
        self.wait_airflow(span)
        return span
