"""What a run shows and when it is over, without a server."""

from __future__ import annotations

import datetime as dt
import io
from pathlib import Path

import pytest
from rich.console import Console

from local.airflow_api import DagRun, Task, entry_text, hour_of_run
from local.commands import summary
from local.days import day_of
from local.follow import (
    CONSUMERS,
    DAILY,
    FEATURES,
    Board,
    board_table,
    check_deadline,
    open_keys,
    tell,
)
from local.screen import Screen, duration
from local.stack import LocalError
from local.versions import ModelVersion, version_table

HOURS = ["2026-11-11T03", "2026-11-11T04"]
DAY = day_of(HOURS[-1], "Asia/Shanghai")


def board(**states: str) -> Board:
    """A board from ``dag__index=state``."""
    found = Board(HOURS)
    for key, state in states.items():
        dag, _, index = key.partition("__")
        hour = HOURS[int(index)]
        found.runs[dag, hour] = DagRun(dag, f"run-{hour}", hour, state)
    return found


def shown(*things: object) -> str:
    """As printed without a terminal."""
    console = Console(file=io.StringIO(), width=120, highlight=False)
    for thing in things:
        console.print(thing)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_a_run_is_over_when_every_dag_of_every_hour_has_finished() -> None:
    assert len(open_keys(board())) == 6
    done = {f"{dag}__{index}": "success" for dag in (FEATURES, *CONSUMERS) for index in (0, 1)}
    assert open_keys(board(**done)) == []
    assert open_keys(board(**{**done, "hourly_gbdt__1": "running"})) == [("hourly_gbdt", HOURS[1])]


def test_failed_features_end_the_wait_for_later_hours_and_a_failed_model_does_not() -> None:
    assert open_keys(board(hourly_features__0="failed")) == []
    model = board(hourly_features__0="success", hourly_gbdt__0="failed")
    assert (FEATURES, HOURS[1]) in open_keys(model)
    assert [run.dag for run in model.failed()] == ["hourly_gbdt"]


def test_a_run_is_over_when_its_day_has_finished_too() -> None:
    done = {f"{dag}__{index}": "success" for dag in (FEATURES, *CONSUMERS) for index in (0, 1)}
    waiting = board(**done)
    waiting.day = DAY
    assert open_keys(waiting) == [(dag, "2026-11-11") for dag in DAILY]
    first, *others = DAILY
    waiting.runs[first, DAY.date] = DagRun(first, "run", DAY.date, "failed")
    assert open_keys(waiting) == [(dag, "2026-11-11") for dag in others]
    for dag in others:
        waiting.runs[dag, DAY.date] = DagRun(dag, "run", DAY.date, "success")
    assert open_keys(waiting) == []
    assert [run.dag for run in waiting.failed()] == [first]


def test_a_day_is_not_waited_for_when_one_of_its_hours_failed() -> None:
    stopped = board(hourly_features__0="failed")
    stopped.day = DAY
    assert open_keys(stopped) == []
    stopped.day = day_of("2026-11-10T04", "Asia/Shanghai")  # complete before those hours
    assert open_keys(stopped) == [(dag, "2026-11-10") for dag in DAILY]


def test_only_the_runs_of_the_hours_and_of_the_day_are_followed() -> None:
    followed = Board(HOURS, DAY)
    for dag in DAILY:
        assert followed.holds(DagRun(dag, "a", "2026-11-11", "queued"))
        assert not followed.holds(DagRun(dag, "c", "2026-11-10", "queued"))
        assert not Board(HOURS).holds(DagRun(dag, "a", "2026-11-11", "queued"))
    assert followed.holds(DagRun(FEATURES, "b", HOURS[0], "queued"))
    assert not followed.holds(DagRun(FEATURES, "d", "2026-11-11T05", "queued"))


def test_a_standstill_is_an_error_that_names_what_is_open_unless_a_task_is_running() -> None:
    standing = board(hourly_features__0="queued")
    with pytest.raises(LocalError, match="hourly_features 2026-11-11T03"):
        check_deadline(standing, unchanged=301, total=400)
    standing.tasks[FEATURES, HOURS[0]] = [Task("build_samples", "running", 1, None, None)]
    check_deadline(standing, unchanged=301, total=400)


def test_plain_lines_tell_each_change_once() -> None:
    console = Console(file=io.StringIO(), width=120)
    screen = Screen(console)
    now = board(hourly_features__0="running")
    key = (FEATURES, HOURS[0])
    now.tasks[key] = [
        Task("ingest_events", "success", 1, 3.0, None),
        Task("validate_events", "running", 2, None, None),
        Task("build_samples", "waiting", 0, None, None),
    ]
    after = {key: ("running", tuple((t.name, t.state, t.attempt) for t in now.tasks[key]))}
    tell(now, {}, after, screen)
    tell(now, after, after, screen)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert [line.split() for line in lines] == [
        [HOURS[0], "hourly_features.ingest_events", "success", "3.0", "s"],
        [HOURS[0], "hourly_features.validate_events", "running", "(attempt", "2)"],
    ]


def test_the_board_shows_hours_tasks_and_times() -> None:
    now = board(hourly_features__0="running")
    started = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=42)
    now.tasks[FEATURES, HOURS[0]] = [
        Task("ingest_events", "success", 1, 3.0, started),
        Task("build_samples", "running", 1, None, started),
    ]
    text = shown(board_table(now))
    assert "✔ ingest_events 3.0 s" in " ".join(text.split())
    assert "build_samples 42 s" in " ".join(text.split())
    assert HOURS[1] in text
    assert not any(dag in text for dag in DAILY)
    now.day = DAY
    training = DAILY[0]
    now.runs[training, DAY.date] = DagRun(training, "run", DAY.date, "running")
    now.tasks[training, DAY.date] = [Task("pretrain_transformer", "success", 1, 185.0, started)]
    lines = shown(board_table(now)).splitlines()
    [row] = [line for line in lines if "pretrain_transformer" in line]
    assert DAY.date in row and "3 min 05 s" in row


def test_the_last_table_shows_the_interval_and_popularity() -> None:
    full = ModelVersion("gbdt_ranker", 3, ("champion",), HOURS[1], 0.8462, 0.8411, 0.8513, 0.8104)
    bare = ModelVersion("gbdt_ranker", 4, (), HOURS[1], None, None, None, None)
    rows = [line for line in shown(version_table([full, bare])).splitlines() if "gbdt" in line]
    assert [cell.strip() for cell in rows[0].strip("│").split("│")] == [
        "gbdt_ranker",
        "3",
        "champion",
        HOURS[1],
        "0.8462 [0.8411, 0.8513]",
        "0.8104",
    ]
    assert [cell.strip() for cell in rows[1].strip("│").split("│")][4:] == ["-", "-"]


def test_the_hour_of_a_run_is_its_partition_else_its_interval() -> None:
    assert hour_of_run({"partition_key": HOURS[0], "data_interval_start": None}) == HOURS[0]
    interval = {"partition_key": None, "data_interval_start": "2026-11-11T04:00:00Z"}
    assert hour_of_run(interval) == HOURS[1]
    assert hour_of_run({"data_interval_start": None}) == ""


def test_a_log_entry_shows_the_exception() -> None:
    entry = {"event": "Task failed", "error_detail": [{"exc_type": "E", "exc_value": "why"}]}
    assert entry_text(entry) == "Task failed\nE: why"


def test_the_summary_is_the_last_json_object_of_a_log(tmp_path: Path) -> None:
    log = tmp_path / "job.log"
    log.write_text('[job] begins\n{"hours": ["a"]}\n{"hours": ["b"]}\n{cut\nWARN late words\n')
    assert summary(log) == {"hours": ["b"]}
    log.write_text("nothing\n")
    assert summary(log) == {}


def test_durations_read_well() -> None:
    assert [duration(s) for s in (4.23, 42.4, 185)] == ["4.2 s", "42 s", "3 min 05 s"]
