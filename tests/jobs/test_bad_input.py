"""What comes in wrong, through the real jobs: exit status, message, summary, what is committed."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from feature_store import hours as hr
from feature_store.schemas import SOURCE_EVENTS, optional
from jobs import ingest_events
from jobs.support.stages import require_hours
from jobs.support.summary import RefusedError
from tests.jobs.conftest import HOUR, Project, Result, event, events

BEFORE, AFTER = hr.add(HOUR, -1), hr.add(HOUR, 1)
DAY_BEFORE = hr.add(HOUR, -24)


@pytest.fixture(autouse=True)
def untracked(project: Project) -> None:
    """Nothing here needs MLflow; pages of gates have tests of their own."""
    project.tracked = False


def table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=optional(SOURCE_EVENTS))


def assert_refused(project: Project, result: Result, code: int = 3) -> None:
    """The status in all three places, the same message on the summary line, nothing committed."""
    assert result.code == code
    assert result.summary["status"] == {1: "failed", 2: "bad arguments", 3: "refused"}[code]
    assert result.summary["message"] in result.err
    assert result.summary["snapshots"] == {}
    assert project.state() == {}


# -- files that are not what the source says ---------------------------------------------------


def test_a_missing_column_is_refused(project: Project) -> None:
    path = project.write_table(table(events(20)).drop_columns(["user_id"]))
    result = project.run("ingest_events", "--hour", HOUR)
    assert_refused(project, result)
    for named in (str(path), "'user_id'", "20 rows", "rename or add"):
        assert named in result.summary["message"]


def test_a_wrong_type_is_refused(project: Project) -> None:
    rows = table(events(20))
    place = rows.schema.get_field_index("event_time")
    path = project.write_table(rows.set_column(place, "event_time", pa.array(["5 o'clock"] * 20)))
    result = project.run("ingest_events", "--hour", HOUR)
    assert_refused(project, result)
    for named in (str(path), "'event_time'", "20 rows", '"5 o\'clock"', "timestamp"):
        assert named in result.summary["message"]


def test_a_refusal_is_the_exit_status_of_the_process(project: Project) -> None:
    project.write_table(table(events(20)).drop_columns(["action"]))
    result = project.spawn("ingest_events", "--hour", HOUR)
    assert_refused(project, result)
    assert "'action'" in result.summary["message"]
    assert "Traceback" not in result.err


def test_an_empty_folder_is_refused(project: Project) -> None:
    result = project.run("ingest_events", "--hour", HOUR)
    assert_refused(project, result)
    assert str(project.data / "events") in result.summary["message"]


def test_an_entity_without_its_key_is_refused_before_any_commit(project: Project) -> None:
    project.write(events(20))
    users = pa.table(
        {"user_id": pa.array(["u1", None]), "valid_from": [event(0)["event_time"]] * 2}
    )
    path = project.write_table(users, "../users/part")
    result = project.run("ingest_events", "--hour", HOUR)
    assert_refused(project, result)
    for named in (str(path.resolve()), "'user_id'", "1 of 2 rows"):
        assert named in result.summary["message"]


# -- rows ---------------------------------------------------------------------------------------

BAD_ROWS: dict[str, dict[str, Any]] = {
    "unknown_action": {"action": "teleport"},
    "null_key": {"user_id": None},
    "unknown_target_type": {"target_type": "planet"},
    "bad_value": {"value": float("nan")},
    "bad_position": {"position": 0},
}


@pytest.mark.parametrize("reason", BAD_ROWS)
def test_a_few_bad_rows_go_to_quarantine(project: Project, reason: str) -> None:
    bad = [event(n, **BAD_ROWS[reason]) for n in (3, 7)]
    project.write([*bad, *(event(n) for n in range(20) if n not in (3, 7))])  # exactly the share
    result = project.run("ingest_events", "--hour", HOUR)
    assert (result.code, result.summary["status"]) == (0, "done")
    summary = result.summary
    assert (summary["rows_in"], summary["rows_out"], summary["rejected"]) == (20, 18, {
        "duplicate": 0, reason: 2})  # fmt: skip
    state = project.state()
    assert {row["event_id"] for row in state["events rows"]}.isdisjoint(b["event_id"] for b in bad)
    assert len(state["events rows"]) == 18
    quarantined = state["quarantine rows"]
    assert [(q["event_id"], q["reason"]) for q in quarantined] == [
        (b["event_id"], reason) for b in bad
    ]
    assert '"request_id": "2026-11-11T05-r0"' in quarantined[0]["row_json"]


@pytest.mark.parametrize("reason", BAD_ROWS)
def test_too_many_bad_rows_are_refused(project: Project, reason: str) -> None:
    project.write([event(n, **(BAD_ROWS[reason] if n < 3 else {})) for n in range(20)])
    result = project.run("ingest_events", "--hour", HOUR)
    assert_refused(project, result)
    message = result.summary["message"]
    for named in (HOUR, "3 of 20 rows", f"'{reason}': 3", "ingest.max_bad_share", f"{HOUR}-2"):
        assert named in message
    if reason == "unknown_action":
        assert '"action": "teleport"' in message


def test_one_bad_hour_of_a_range_commits_none_of_it(project: Project) -> None:
    project.write([*events(20, BEFORE), *events(20, action="teleport"), *events(20, AFTER)])
    result = project.run("ingest_events", "--from-hour", BEFORE, "--to-hour", AFTER)
    assert_refused(project, result)
    assert project.run("ingest_events", "--hour", AFTER).code == 0, "the hour itself is good"


def test_duplicates_are_kept_once_and_counted(project: Project) -> None:
    again = event(1, arrived=45)  # the same id, twenty minutes later
    across = event(2, arrived=80)  # and once more in the hour after
    project.write([*events(10, arrived=25), again])
    project.write([across, event(100, AFTER)], "b")
    first = project.run("ingest_events", "--hour", HOUR)
    second = project.run("ingest_events", "--hour", AFTER)
    assert (first.summary["rows_in"], first.summary["rows_out"]) == (11, 10)
    assert (second.summary["rows_in"], second.summary["rows_out"]) == (2, 1)
    assert first.summary["rejected"] == second.summary["rejected"] == {"duplicate": 1}
    rows = project.state()["events rows"]
    assert len(rows) == len({row["event_id"] for row in rows}) == 11
    assert next(r for r in rows if r["event_id"] == again["event_id"])["ingested_at"].minute == 25


def test_late_and_future_events_go_to_quarantine(project: Project) -> None:
    bounds = [event(90, happened=30 - 120), event(91, happened=30)]  # exactly allowed
    late = [event(n, happened=30 - 121) for n in range(3)]
    future = [event(n, happened=31) for n in range(3, 7)]
    project.write([*bounds, *late, *future])  # far above the share of malformed rows
    result = project.run("ingest_events", "--hour", HOUR)
    assert result.code == 0
    assert result.summary["rejected"] == {"duplicate": 0, "late": 3, "future": 4}
    assert result.summary["rows_out"] == 2
    reasons = [row["reason"] for row in project.state()["quarantine rows"]]
    assert reasons == ["future"] * 4 + ["late"] * 3


def test_a_row_without_any_time_is_judged_and_not_lost(project: Project) -> None:
    project.write([event(0, event_time=None, ingested_at=None), *(event(n) for n in range(1, 20))])
    result = project.run("ingest_events", "--hour", HOUR)
    assert result.code == 0
    assert result.summary["rejected"] == {"duplicate": 0, "null_key": 1}


# -- hours --------------------------------------------------------------------------------------


def test_an_hour_without_events_is_complete_and_empty(project: Project) -> None:
    project.write([*events(20, BEFORE), *events(20, AFTER)])
    assert project.run("ingest_events", "--hour", HOUR).code == 0
    judged = project.run("validate_events", "--hour", HOUR)
    assert judged.code == 0
    state = project.state()
    assert "complete and empty" in state["gate_results rows"][0]["message"]
    assert state["events hours"] == {HOUR: (0, "empty", True)}
    assert "events rows" not in state
    store = project.store()
    assert store.readable_hours("events", BEFORE, AFTER) == [HOUR]
    assert store.read("events", [HOUR]).num_rows == 0


def refused_hour(project: Project) -> Result:
    """A usual hour, and the same hour a day later with a tenth of the volume and less."""
    project.configure(gates={"min_history": 1})
    project.write([*events(40, DAY_BEFORE), *events(3)])
    for hour in (DAY_BEFORE, HOUR):
        assert project.run("ingest_events", "--hour", hour).code == 0
    assert project.run("validate_events", "--hour", DAY_BEFORE).code == 0
    return project.run("validate_events", "--hour", HOUR)


def test_an_hour_of_odd_volume_is_refused_and_nobody_reads_it(project: Project) -> None:
    result = refused_hour(project)
    assert (result.code, result.summary["status"]) == (3, "refused")
    message = result.summary["message"]
    for named in (f"volume of {HOUR} is 3", "0.07 times the expected 40", "nobody reads it",
                  f"validate_events.py --hour {HOUR} --accept"):  # fmt: skip
        assert named in message
    assert message in result.err
    store = project.store()
    assert store.ledger.completions("events", HOUR, HOUR)[HOUR].validated is False
    assert store.readable_hours("events", DAY_BEFORE, HOUR) == [DAY_BEFORE]
    with pytest.raises(RefusedError, match=f"events of {HOUR} is not there or not validated"):
        require_hours(store, "events", [DAY_BEFORE, HOUR], "validate_events")


def test_a_refused_hour_can_be_accepted(project: Project) -> None:
    refused_hour(project)
    result = project.run("validate_events", "--hour", HOUR, "--accept", "a holiday")
    assert (result.code, result.summary["rejected"]["accepted"]) == (0, 1)
    assert project.store().readable_hours("events", DAY_BEFORE, HOUR) == [DAY_BEFORE, HOUR]
    [verdict] = [v for v in project.state()["gate_results rows"] if v["level"] == "accepted"]
    assert "accepted: a holiday" in verdict["message"]


def test_a_refused_hour_can_be_corrected(project: Project) -> None:
    refused_hour(project)
    project.write([*events(40, DAY_BEFORE), *events(38)])
    assert project.run("ingest_events", "--hour", HOUR).code == 0
    assert project.store().readable_hours("events", HOUR, HOUR) == [], "new content, new verdict"
    assert project.run("validate_events", "--hour", HOUR).code == 0
    assert project.store().readable_hours("events", HOUR, HOUR) == [HOUR]


def test_an_odd_click_rate_is_refused(project: Project) -> None:
    project.configure(gates={"min_history": 1, "rules": {"click_rate": {"min_rows": 20}}})
    clicks = [event(n, BEFORE, event_id=f"c{n}", action="click") for n in range(20)]
    project.write([*events(40, BEFORE), *clicks, *events(40)])
    for hour in (BEFORE, HOUR):
        assert project.run("ingest_events", "--hour", hour).code == 0
    result = project.run("validate_events", "--from-hour", BEFORE, "--to-hour", HOUR)
    assert result.code == 3
    assert f"click_rate of {HOUR} is 0" in result.summary["message"]
    assert project.store().readable_hours("events", BEFORE, HOUR) == [BEFORE]


def test_an_hour_that_was_not_ingested_cannot_be_validated(project: Project) -> None:
    project.write(events(5))
    result = project.run("validate_events", "--hour", HOUR)
    assert_refused(project, result)
    assert f"run ingest_events.py --hour {HOUR} first" in result.summary["message"]


def test_ingesting_again_changes_nothing(project: Project) -> None:
    project.write([*events(20), event(1, arrived=45), event(50, action="teleport")])
    first = project.run("ingest_events", "--hour", HOUR)
    project.run("validate_events", "--hour", HOUR)
    before = project.state()
    again = project.run("ingest_events", "--hour", HOUR)
    assert again.code == 0
    assert again.summary["snapshots"] == first.summary["snapshots"]
    assert project.state() == before, "rows, hours and the verdict stay"
    assert project.store().readable_hours("events", HOUR, HOUR) == [HOUR]


def test_the_order_of_ingestion_does_not_matter(project: Project, tmp_path: Any) -> None:
    rows = [
        *events(10, BEFORE), *events(10), *events(10, AFTER),
        event(3, BEFORE, arrived=70), event(3, BEFORE, arrived=130), event(4, arrived=61),
        event(60, AFTER, happened=-80), event(61, AFTER, action="teleport"),
    ]  # fmt: skip
    project.write(rows)
    hours = hr.hour_range(BEFORE, AFTER)
    states = []
    for name, order in (("forward", hours), ("reverse", hours[::-1]), ("range", None)):
        other = Project(tmp_path / name, project.capture)
        other.folder.mkdir()
        other.configure(
            source={"name": "parquet", "options": {"path": str(project.data)}},
            ingest={"max_bad_share": 0.1},
        )
        calls = (
            [("--from-hour", BEFORE, "--to-hour", AFTER)]
            if order is None
            else [("--hour", hour) for hour in order]
        )
        for call in calls:
            assert other.run("ingest_events", *call).code == 0
        states.append(other.state())
    assert states[0] == states[1] == states[2]
    assert len(states[0]["events rows"]) == 31


def test_a_dry_run_commits_nothing(project: Project) -> None:
    project.write(events(20))
    result = project.run("ingest_events", "--hour", HOUR, "--dry-run")
    assert (result.code, result.summary["status"], result.summary["rows_out"]) == (0, "dry-run", 20)
    assert project.state() == {}


# -- what is around the jobs --------------------------------------------------------------------


def test_an_unreachable_database_is_named(project: Project) -> None:
    project.write(events(5))
    with socket.socket() as taken:  # bound and not listening: nobody can answer there
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
        address = f"postgresql+psycopg2://rankmill:secret@127.0.0.1:{port}/catalog"
        result = project.run("ingest_events", "--hour", HOUR, "--catalog-uri", address)
    assert (result.code, result.summary["status"]) == (1, "failed")
    for named in ("127.0.0.1", str(port), "RANKMILL_CATALOG_URI", "Start it"):
        assert named in result.summary["message"]
    assert "secret" not in result.out + result.err
    assert "Traceback" not in result.err
    assert not (project.folder / "warehouse").exists()


# -- arguments and configuration ----------------------------------------------------------------

BAD_SETTINGS: dict[str, tuple[Callable[[Project], None], tuple[str, ...], str]] = {
    "no hour": (lambda _: None, (), "--hour"),
    "two ways": (lambda _: None, ("--hour", HOUR, "--date", "2026-11-11"), "one of --hour"),
    "half a range": (lambda _: None, ("--from-hour", HOUR), "go together"),
    "range reversed": (
        lambda _: None, ("--from-hour", HOUR, "--to-hour", BEFORE), "lies before --from-hour",
    ),
    "no hour's name": (lambda _: None, ("--hour", "2026-11-11 05:00"), "2026-11-11 05:00"),
    "no such hour": (lambda _: None, ("--hour", "2026-02-30T05"), "2026-02-30T05"),
    "unknown section": (lambda p: p.configure(ingets={}), ("--hour", HOUR), "ingets"),
    "unknown key": (
        lambda p: p.configure(ingest={"max_bad_shar": 0.1}), ("--hour", HOUR), "max_bad_shar",
    ),
    "wrong type": (
        lambda p: p.configure(ingest={"max_bad_share": "few"}), ("--hour", HOUR), "'few'",
    ),
    "unknown source": (
        lambda p: p.configure(source={"name": "kuairandd"}), ("--hour", HOUR), "kuairandd",
    ),
    "unknown option": (
        lambda p: p.configure(source={"name": "parquet", "options": {"path": "x", "paht": "y"}}),
        ("--hour", HOUR), "paht",
    ),
    "no path": (lambda p: p.configure(source={"name": "parquet"}), ("--hour", HOUR), "'path'"),
    "no configuration": (
        lambda _: None, ("--hour", HOUR, "--config", "/no/such.yaml"), "/no/such.yaml",
    ),
    "no warehouse": (lambda _: None, ("--hour", HOUR, "--warehouse", ""), "RANKMILL_WAREHOUSE"),
    "no YAML": (
        lambda p: (p.folder / "conf.yaml").write_text("source: [") and None, ("--hour", HOUR),
        "not YAML",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_SETTINGS)
@pytest.mark.parametrize("job", ["ingest_events", "validate_events"])
def test_bad_arguments_and_configurations(project: Project, job: str, case: str) -> None:
    prepare, arguments, named = BAD_SETTINGS[case]
    project.write(events(5))
    prepare(project)
    result = project.run(job, *arguments)
    assert (result.code, result.summary["status"]) == (2, "bad arguments")
    assert named in result.summary["message"]
    assert result.summary["message"] in result.err
    assert "Traceback" not in result.err
    assert not (project.folder / "catalog.db").exists()


def test_an_unknown_argument_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        ingest_events.main(["--hours", HOUR])
    assert ended.value.code == 2
    assert "--hours" in capsys.readouterr().err
