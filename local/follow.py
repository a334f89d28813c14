"""Follows hours and a day through Airflow: which task, in what state, for how long."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import requests
from rich.console import Group
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from local.airflow_api import FINISHED, AirflowApi, DagRun, Task
from local.days import Day
from local.screen import Screen, duration
from local.stack import LocalError

__all__ = ["CONSUMERS", "DAGS", "DAILY", "FEATURES", "Board", "follow", "open_keys"]

FEATURES = "hourly_features"
CONSUMERS = ("hourly_gbdt", "offline_evaluation")
DAILY = ("daily_pretraining", "daily_graph_embedding")
DAGS = (FEATURES, *CONSUMERS, *DAILY)
POLL_SECONDS = 1.0
IDLE_SECONDS = 300  # nothing runs and nothing changes for so long: nothing will
LONGEST_SECONDS = 6 * 3600
SIGNS = {
    "success": ("✔", "green"),
    "failed": ("✘", "red"),
    "upstream_failed": ("✘", "red"),
    "skipped": ("-", "dim"),
    "up_for_retry": ("↻", "yellow"),
}
SPINNER = Spinner("dots")

Key = tuple[str, str]  # DAG, and the hour or the day that its run is for


@dataclass
class Board:
    """The runs of ``hours``, by (DAG, hour), with the tasks of each; and those of a day, if any."""

    hours: Sequence[str]
    day: Day | None = None
    runs: dict[Key, DagRun] = field(default_factory=dict)
    tasks: dict[Key, list[Task]] = field(default_factory=dict)

    def state(self, dag: str, hour: str) -> str:
        """The state of a run; empty before it was created."""
        run = self.runs.get((dag, hour))
        return run.state if run else ""

    def holds(self, run: DagRun) -> bool:
        """Whether a run is one of those to follow."""
        if run.dag in DAILY:
            return self.day is not None and run.hour == self.day.date
        return run.hour in self.hours

    def failed(self) -> list[DagRun]:
        """The runs that failed, by hour."""
        found = [run for run in self.runs.values() if run.state == "failed"]
        return sorted(found, key=lambda run: (run.hour, run.dag))

    def busy(self) -> bool:
        """Whether a task is running, or waits for its next attempt, now."""
        states = {task.state for tasks in self.tasks.values() for task in tasks}
        return not states.isdisjoint(("running", "up_for_retry"))

    def update(self, api: AirflowApi) -> None:
        """Read all runs, and the tasks of those that had not finished when last read."""
        for dag in DAGS:
            for run in api.runs(dag):
                key = (dag, run.hour)
                if not self.holds(run):
                    continue
                before = self.runs.get(key)
                self.runs[key] = run
                if before is None or before != run or run.state not in FINISHED:
                    self.tasks[key] = api.tasks(run)


def open_keys(board: Board) -> list[Key]:
    """The (DAG, hour) that are still to finish: all but those that a failure has made impossible.

    The features of an hour wait for those of the hour before; an hour whose features failed is not
    announced, so it has no consumers, and its day does not become complete.
    """
    found: list[Key] = []
    day = board.day
    for hour in board.hours:
        state = board.state(FEATURES, hour)
        if state == "failed":
            if day and day.hours[-1] >= hour:
                day = None
            break
        dags = (FEATURES, *CONSUMERS)
        found += [(dag, hour) for dag in dags if board.state(dag, hour) not in FINISHED]
    if day:
        found += [(dag, day.date) for dag in DAILY if board.state(dag, day.date) not in FINISHED]
    return found


def follow(
    api: AirflowApi,
    hours: Sequence[str],
    day: Day | None,
    screen: Screen,
    check: Callable[[], None],
) -> Board:
    """Show progress until every run of ``hours`` and ``day`` has finished or cannot begin any more.

    Raises:
        LocalError: when a service ended, the API stopped answering, or nothing moves any more.
    """
    board = Board(hours, day)
    begun = changed = answered = time.monotonic()
    before: dict[Key, object] = {}
    with live_display(screen) as display:
        while True:
            check()
            now = time.monotonic()
            try:
                board.update(api)
                answered = now
            except requests.RequestException as error:
                if now - answered > 60:
                    raise LocalError(f"Airflow's API gave no answer for 60 s: {error}") from error
            after: dict[Key, object] = {key: states(board, key) for key in board.runs}
            if after != before:
                changed = now
            if display is None:
                tell(board, before, after, screen)
            else:
                display.update(board_table(board))
            before = after
            if not open_keys(board):
                return board
            check_deadline(board, now - changed, now - begun)
            time.sleep(POLL_SECONDS)


def check_deadline(board: Board, unchanged: float, total: float) -> None:
    """Raise LocalError when nothing moves any more, naming what is still open."""
    if (unchanged > IDLE_SECONDS and not board.busy()) or total > LONGEST_SECONDS:
        waiting = ", ".join(f"{dag} {hour}" for dag, hour in open_keys(board))
        raise LocalError(
            f"Nothing has changed for {duration(unchanged)} and these runs have not finished: "
            f"{waiting}. Airflow's scheduler log says why."
        )


def live_display(screen: Screen) -> AbstractContextManager[Live | None]:
    """A table that is redrawn in place on a terminal; nothing elsewhere."""
    if screen.live:
        return Live(console=screen.console, refresh_per_second=8)
    return nullcontext()


def states(board: Board, key: Key) -> tuple[str, tuple[tuple[str, str, int], ...]]:
    """The state of a run and of each of its tasks: what is compared to see a change."""
    tasks = board.tasks.get(key, [])
    return board.runs[key].state, tuple((task.name, task.state, task.attempt) for task in tasks)


def tell(
    board: Board, before: Mapping[Key, object], after: Mapping[Key, object], screen: Screen
) -> None:
    """One plain line per task that has changed."""
    for key in sorted(after, key=lambda key: (key[1], key[0] != FEATURES, key[0])):
        known = before.get(key)
        earlier = set(known[1]) if isinstance(known, tuple) else set()
        for task in board.tasks.get(key, []):
            shown = task.state in SIGNS or task.state == "running"
            if shown and (task.name, task.state, task.attempt) not in earlier:
                time_taken = duration(task.seconds) if task.seconds is not None else ""
                again = f" (attempt {task.attempt})" if task.attempt > 1 else ""
                name = f"{key[0]}.{task.name}"
                line = f"    {key[1]:<13}  {name:<38} {task.state}{again} {time_taken}"
                screen.say(line.rstrip())


def board_table(board: Board) -> Group:
    """One row per hour, one column per DAG, one line per task; below them the day."""
    table = Table(title="Airflow", title_justify="left", title_style="bold", show_lines=True)
    table.add_column("hour", no_wrap=True)
    for dag in (FEATURES, *CONSUMERS):
        table.add_column(dag, no_wrap=True)
    for hour in board.hours:
        table.add_row(hour, *(cell(board, (dag, hour)) for dag in (FEATURES, *CONSUMERS)))
    if board.day is None:
        return Group(table)
    below = Table(show_lines=True)
    below.add_column("day", no_wrap=True)
    for dag in DAILY:
        below.add_column(dag, no_wrap=True)
    below.add_row(board.day.date, *(cell(board, (dag, board.day.date)) for dag in DAILY))
    return Group(table, below)


def cell(board: Board, key: Key) -> Table:
    """The tasks of one run with their signs and times."""
    grid = Table.grid(padding=(0, 1))
    for task in board.tasks.get(key, []):
        sign, style = SIGNS.get(task.state, ("·", "dim"))
        mark = SPINNER if task.state == "running" else Text(sign, style=style)
        grid.add_row(mark, Text(task.name, style=style), Text(task_time(task), style="dim"))
    return grid


def task_time(task: Task) -> str:
    """How long a task took, or has been running."""
    if task.seconds is not None:
        return duration(task.seconds)
    if task.state == "running" and task.started:
        return duration(max(0.0, (dt.datetime.now(dt.UTC) - task.started).total_seconds()))
    return ""
