"""Every gate through the real job: it passes, warns and refuses; then accepted; what is kept."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from feature_store import hours as hr
from tests.jobs.conftest import HOUR, Project, Result
from tests.jobs.usual_hour import ACTIONS, SHOWN, Row, hour_of_events

EARLIER = [hr.add(HOUR, -24), *hr.hour_range(hr.add(HOUR, -3), hr.add(HOUR, -1))]
# Small hours, so that the tests are quick; the levels are those of conf/gates.yaml.
GATES: dict[str, Any] = {
    "min_history": len(EARLIER),
    "rules": {
        **{f"{action}_rate": {"min_expected": 20} for action in ACTIONS if action != "click"},
        **{name: {"min_rows": 30} for name in ("stay_range", "amount_range")},
        **{
            f"{name}_drift": {"min_rows": 100} for name in ("action", "scene", "target", "position")
        },
    },
}

Content = Callable[[], list[Row]]


def outcomes(action: str, changed: int, value: float) -> Content:
    """A usual hour in which the first ``changed`` events of an action have another value."""

    def rows() -> list[Row]:
        ids = {f"{HOUR}-{action}-{n}" for n in range(changed)}
        return [{**r, "value": value} if r["event_id"] in ids else r for r in hour_of_events()]

    return rows


def usual() -> list[Row]:
    return hour_of_events()


def impressions(changed: int, **to: Any) -> Content:
    return lambda: hour_of_events(changed=changed, to=to)


def count(**counts: int) -> Content:
    return lambda: hour_of_events(**counts)


# gate -> an hour at which it warns, and one which it refuses; None where it has no such level here
CASES: dict[str, tuple[Content | None, Content]] = {
    "volume": (count(shown=150), count(shown=30)),
    "click_rate": (count(click=40), count(click=15)),
    "long_view_rate": (count(long_view=30), count(long_view=10)),
    "stay_rate": (count(stay=40), count(stay=15)),
    "cart_rate": (count(cart=15), count(cart=5)),
    "favor_rate": (count(favor=15), count(favor=5)),
    "order_rate": (count(order=120), count(order=2)),
    "follow_rate": (count(follow=90), count(follow=250)),
    "like_rate": (count(like=15), count(like=5)),
    "comment_rate": (count(comment=90), count(comment=0)),
    "request_nulls": (impressions(20, request_id=None), impressions(200, request_id=None)),
    "position_nulls": (impressions(20, position=None), impressions(100, position=None)),
    "scene_nulls": (impressions(20, scene=None), impressions(100, scene=None)),
    "propensity_nulls": (impressions(20, propensity=None), impressions(100, propensity=None)),
    "position_range": (impressions(2, position=5000), impressions(10, position=5000)),
    "propensity_range": (None, impressions(2, propensity=0.0)),
    "stay_range": (None, outcomes("stay", 2, 90_000.0)),
    "amount_range": (outcomes("order", 1, 2e6), outcomes("order", 10, 2e6)),
    "action_drift": (count(click=300), count(click=1500)),
    "scene_drift": (impressions(240, scene="search"), impressions(SHOWN, scene="game")),
    "target_drift": (impressions(120, target_type="room"), impressions(350, target_type="room")),
    "position_drift": (impressions(120, position=1), impressions(300, position=1)),
}


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a store whose EARLIER hours are ingested and validated."""
    return tmp_path_factory.mktemp("past")


@pytest.fixture
def project(project: Project, past: Path) -> Project:
    """That store; each test brings an hour of its own."""
    found = Project(past, project.capture, tracked=False)
    found.configure(gates=GATES)
    if not (past / "catalog.db").exists():
        found.write([row for hour in EARLIER for row in hour_of_events(hour)], "earlier")
        for hour in EARLIER:
            for job in ("ingest_events", "validate_events"):
                result = found.run(job, "--hour", hour)
                assert result.code == 0, result.err
    return found


def ingest(project: Project, rows: list[Row], hour: str = HOUR) -> None:
    project.write(rows, hour)
    result = project.run("ingest_events", "--hour", hour)
    assert result.code == 0, result.err


def validate(project: Project, rows: list[Row], *given: str) -> Result:
    """The job on HOUR with these rows."""
    ingest(project, rows)
    return project.run("validate_events", "--hour", HOUR, *given)


def verdicts(project: Project, hour: str = HOUR) -> dict[str, Row]:
    store = project.store()
    rows = store.read("gate_results", [hour]).to_pylist()
    store.close()
    return {row["gate"]: row for row in rows}


def is_read(project: Project) -> bool:
    store = project.store()
    found = store.readable_hours("events", HOUR, HOUR) == [HOUR]
    store.close()
    return found


# -- each gate, each way ------------------------------------------------------------------------


def test_every_gate_passes_a_usual_hour(project: Project) -> None:
    result = validate(project, usual())
    assert result.code == 0, result.err
    found = verdicts(project)
    assert {row["level"] for row in found.values()} == {"pass"}
    assert set(found) == {*CASES, "schema"}, "every declared gate has its cases here"
    unjudged = {gate for gate, row in found.items() if row["expected"] is None}
    assert not unjudged, "none for want of rows or history"
    assert is_read(project)


@pytest.mark.parametrize("gate", [gate for gate, (warned, _) in CASES.items() if warned])
def test_a_gate_warns_and_the_hour_goes_on(project: Project, gate: str) -> None:
    warned, _ = CASES[gate]
    result = validate(project, warned() if warned else [])
    assert result.code == 0, result.summary["message"]
    row = verdicts(project)[gate]
    assert row["level"] == "warn", row
    assert row["message"] in result.out
    assert f"{gate} of {HOUR}" in row["message"]
    assert is_read(project)


@pytest.mark.parametrize("gate", CASES)
def test_a_gate_refuses_and_its_verdict_can_be_accepted(project: Project, gate: str) -> None:
    rows = CASES[gate][1]()
    result = validate(project, rows)
    assert (result.code, result.summary["status"]) == (3, "refused"), verdicts(project)[gate]
    row = verdicts(project)[gate]
    assert row["level"] == "fail", row
    for named in (row["message"], f"{gate} of {HOUR}", "allowed without fail", "nobody reads it",
                  f"validate_events.py --hour {HOUR} --accept"):  # fmt: skip
        assert named in result.summary["message"]
    assert not is_read(project)

    accepted = project.run("validate_events", "--hour", HOUR, "--accept", "a festival")
    assert accepted.code == 0, accepted.err
    assert verdicts(project)[gate]["level"] == "accepted"
    assert "accepted: a festival" in verdicts(project)[gate]["message"]
    assert is_read(project)
    again = project.run("validate_events", "--hour", HOUR)
    assert again.code == 0, "remembered for the same value"
    assert verdicts(project)[gate]["message"].endswith("accepted: a festival")


def test_another_value_is_not_what_was_accepted(project: Project) -> None:
    assert validate(project, hour_of_events(click=11), "--accept", "known").code == 0
    assert validate(project, hour_of_events(click=11)).code == 0
    assert validate(project, hour_of_events(click=12)).code == 3
    assert "click_rate" in project.run("validate_events", "--hour", HOUR).summary["message"]


# -- files --------------------------------------------------------------------------------------


def _without_scene(path: Path) -> None:
    pq.write_table(pq.read_table(path).drop_columns(["scene"]), path)


def _positions_as_text(path: Path) -> None:
    table = pq.read_table(path)
    place = table.schema.get_field_index("position")
    text = pc.cast(table["position"], pa.string())
    pq.write_table(table.set_column(place, "position", text), path)


def _half(path: Path) -> None:
    table = pq.read_table(path)
    pq.write_table(table.slice(0, table.num_rows // 2), path)


def _cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


CORRUPTED: dict[str, tuple[Callable[[Path], None], str]] = {
    "a lost column": (_without_scene, "lacks column 'scene'"),
    "another type": (_positions_as_text, "column 'position' of"),
    "lost rows": (_half, "rows, 860 were committed"),
    "half a file": (_cut_off, "is damaged ("),
    "no file": (Path.unlink, "is gone. "),
}


@pytest.mark.parametrize("case", CORRUPTED)
def test_changed_files_are_refused_and_cannot_be_accepted(project: Project, case: str) -> None:
    damage, said = CORRUPTED[case]
    ingest(project, usual())
    store = project.store()
    [path] = store.files("events", [HOUR])
    store.close()
    kept = Path(path).read_bytes()
    damage(Path(path))
    for given in ((), ("--accept", "who needs columns")):
        result = project.run("validate_events", "--hour", HOUR, *given)
        assert (result.code, result.summary["status"]) == (3, "refused"), result.err
        assert said in result.summary["message"]
        assert [(r["gate"], r["level"]) for r in verdicts(project).values()] == [("schema", "fail")]
        assert not is_read(project)
    Path(path).write_bytes(kept)
    assert project.run("validate_events", "--hour", HOUR).code == 0


def test_the_schema_gate_can_be_made_to_warn(project: Project) -> None:
    ingest(project, usual())
    project.configure(
        gates={**GATES, "rules": {**GATES["rules"], "schema": {"warn": 0, "fail": 9}}}
    )
    store = project.store()
    [path] = store.files("events", [HOUR])
    store.close()
    kept = Path(path).read_bytes()
    _without_scene(Path(path))
    assert project.run("validate_events", "--hour", HOUR).code == 0
    assert {g: r["level"] for g, r in verdicts(project).items()} == {"schema": "warn"}
    Path(path).write_bytes(kept)


# -- too little to judge by ---------------------------------------------------------------------


def test_an_hour_without_impressions_is_complete_and_empty(project: Project) -> None:
    result = validate(project, hour_of_events(shown=0, click=5))
    assert result.code == 0
    [row] = verdicts(project).values()
    assert (row["gate"], row["level"], row["value"]) == ("volume", "warn", 0.0)
    assert "complete and empty" in row["message"]
    assert is_read(project)


def test_without_history_only_what_needs_none_is_judged(tmp_path: Path, project: Project) -> None:
    fresh = Project(tmp_path, project.capture, tracked=False)
    fresh.configure(gates=GATES)
    refusing = {"volume": 30, "click": 1}
    assert validate(fresh, hour_of_events(**refusing)).code == 0
    judged = {gate for gate, row in verdicts(fresh).items() if row["expected"] is not None}
    assert judged == {"schema", "position_range", "propensity_range", "stay_range", "amount_range"}
    assert "no history to judge by" in verdicts(fresh)["click_rate"]["message"]
    assert validate(fresh, CASES["propensity_range"][1]()).code == 3


def test_one_hour_of_history_too_few_is_not_judged_by(project: Project) -> None:
    project.configure(gates={**GATES, "min_history": len(EARLIER) + 1})
    assert validate(project, hour_of_events(click=1)).code == 0
    assert verdicts(project)["click_rate"]["expected"] is None


def test_few_rows_and_few_expected_outcomes_are_not_judged(project: Project) -> None:
    project.configure(gates={"min_history": len(EARLIER)})  # the defaults: 1000 rows, 50 expected
    assert validate(project, CASES["scene_drift"][1]()).code == 0
    assert "400 rows, fewer than 1,000" in verdicts(project)["scene_drift"]["message"]
    assert validate(project, CASES["comment_rate"][1]()).code == 0
    assert "40.0 expected, fewer than 50" in verdicts(project)["comment_rate"]["message"]


def test_gates_of_actions_that_the_source_does_not_declare_are_left_out(project: Project) -> None:
    options = {"path": str(project.data), "windows": {"click": 600}}
    project.configure(source={"name": "parquet", "options": options}, gates=GATES)
    assert validate(project, hour_of_events(order=0)).code == 0
    rates = {gate for gate in verdicts(project) if gate.endswith("_rate")}
    assert rates == {"click_rate"}


# -- history ------------------------------------------------------------------------------------


def test_history_is_what_gate_results_hold(project: Project) -> None:
    """Earlier hours' events are not read again: they may even be gone."""
    ingest(project, CASES["scene_drift"][1]())
    store = project.store()
    paths = [Path(path) for path in store.files("events", EARLIER)]
    store.close()
    for path in paths:
        path.rename(path.with_suffix(".away"))
    try:
        result = project.run("validate_events", "--hour", HOUR)
    finally:
        for path in paths:
            path.with_suffix(".away").rename(path)
    assert result.code == 3
    assert "scene_drift" in result.summary["message"]


def test_the_walk_stops_at_the_first_refused_hour(project: Project) -> None:
    after = [hr.add(HOUR, 1), hr.add(HOUR, 2)]
    ingest(project, hour_of_events(click=13))
    for hour in after:
        ingest(project, hour_of_events(hour), hour)
    result = project.run("validate_events", "--from-hour", EARLIER[-1], "--to-hour", after[-1])
    assert result.code == 3
    assert f"click_rate of {HOUR}" in result.summary["message"]
    store = project.store()
    assert store.readable_hours("events", EARLIER[-1], after[-1]) == [EARLIER[-1]]
    assert store.readable_hours("gate_results", HOUR, after[-1]) == [HOUR]
    store.close()


def test_a_refused_hour_is_no_history(project: Project) -> None:
    """Not by the gate that refused it, nor by the others."""
    after = hr.add(HOUR, 1)
    assert validate(project, hour_of_events(click=14)).code == 3
    ingest(project, hour_of_events(after), after)
    assert project.run("validate_events", "--hour", after).code == 0
    day = pc.mean(pa.array([0.2] * 3)).as_py()
    assert verdicts(project, after)["click_rate"]["expected"] == pytest.approx(day)
    project.configure(gates={**GATES, "min_history": len(EARLIER) + 1})
    assert project.run("validate_events", "--hour", after).code == 0
    assert verdicts(project, after)["stay_rate"]["expected"] is None


# -- declarations -------------------------------------------------------------------------------


def test_a_gate_is_added_in_the_configuration_alone(project: Project, tmp_path: Path) -> None:
    fresh = Project(tmp_path, project.capture, tracked=False)
    queries = {"kind": "nulls", "column": "query", "action": "impression", "expected": 0.2,
               "warn": 0.3, "fail": 0.6, "description": "impressions without a query"}  # fmt: skip
    fresh.configure(gates={"rules": {"queries": queries, "scene_drift": None}})
    result = validate(fresh, hour_of_events())
    assert result.code == 3
    assert f"queries of {HOUR} is 100.00% of 400 rows, usually 20.00%" in result.summary["message"]
    assert "scene_drift" not in verdicts(fresh)


BAD_GATES: dict[str, tuple[Any, str]] = {
    "no mapping": ([1], "'gates' must be a mapping"),
    "unknown key": ({"min_hist": 1}, "['min_hist']"),
    "unknown key of a gate": ({"rules": {"volume": {"wran": [0.5, 2]}}}, "['wran']"),
    "another kind's key": ({"rules": {"volume": {"max_values": 3}}}, "['max_values']"),
    "one number for two": ({"rules": {"volume": {"fail": 3}}}, "[low, high], got 3"),
    "unknown kind": ({"rules": {"x": {"kind": "shape"}}}, "'shape'"),
}


@pytest.mark.parametrize("case", BAD_GATES)
def test_a_wrong_declaration_ends_with_2(project: Project, case: str) -> None:
    gates, said = BAD_GATES[case]
    project.configure(gates=gates)
    result = project.run("validate_events", "--hour", HOUR)
    assert (result.code, result.summary["status"]) == (2, "bad arguments")
    assert said in result.summary["message"]
    assert "Traceback" not in result.err


def test_judging_again_changes_nothing(project: Project) -> None:
    validate(project, hour_of_events(click=70))
    before = project.state()
    assert project.run("validate_events", "--hour", HOUR).code == 0
    assert project.state() == before


def test_a_dry_run_judges_and_keeps_nothing(project: Project, tmp_path: Path) -> None:
    fresh = Project(tmp_path, project.capture, tracked=False)
    fresh.configure(gates=GATES)
    shutil.copytree(project.data, fresh.data)
    ingest(fresh, CASES["propensity_range"][1]())
    before = fresh.state()
    result = fresh.run("validate_events", "--hour", HOUR, "--dry-run")
    assert (result.code, fresh.state()) == (3, before)
