"""A day's graph on a real session: what a loop over the store makes, capped, and made again."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pyarrow as pa
import pytest
import yaml
from pyspark.sql import SparkSession

from feature_store import hours as hr
from feature_store.counting import without_bots
from feature_store.graph import ACTION_WEIGHTS, EDGE_TYPES, NODE_TYPES, GraphRules
from feature_store.graph_frames import capped
from feature_store.graph_statistics import Degrees, EdgeStatistics, GraphStatistics
from feature_store.schemas import TABLES, optional
from feature_store.tables import HourWriter, Staged, Store, Writer
from jobs.build_graph import EXPERIMENT, JOB, build, build_parser
from jobs.ingest_events import ingest
from jobs.support import blocks
from jobs.support.fencing import claim
from jobs.support.graph_page import GraphDay, graph_page
from jobs.support.settings import Settings, load_settings
from jobs.support.stages import require_date
from jobs.support.summary import RefusedError, Summary
from tests.jobs.conftest import ROOT, Project
from tests.jobs.graph_by_hand import (
    DATE,
    DAY,
    HOURS,
    LAST,
    RULES,
    ZONE,
    Edge,
    Sums,
    acted_by_hand,
    at,
    entities,
    events_of,
    heaviest,
    stated_by_hand,
)
from tests.session import uses_spark

# MLflow's own tables, under SQLAlchemy 2.1; only where the store is a database and no server.
pytestmark = [
    *uses_spark, pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")
]  # fmt: skip

KUAIRAND = ROOT.parent / "shared" / "data" / "kuairand"


def put(store: Store, table: str, rows: list[dict[str, Any]], hours: list[str]) -> None:
    """``rows`` as the content of ``hours``, each row in its own."""
    schema = optional(TABLES[table].schema)
    staged = Staged(table)
    for hour in hours:
        writer = HourWriter(store, table, hour)
        mine = [{**dict.fromkeys(schema.names), **row} for row in rows if row["hour"] == hour]
        if mine and "categorical" in schema.names:
            mine = [{**row, "numeric": [], "categorical": []} for row in mine]
        writer.write(pa.Table.from_pylist(mine, schema=schema))
        writer.close(staged)
    ingestion = Writer("ingest_events", "test")
    store.ledger.take_fence(ingestion.stage, hours, ingestion.token)
    store.commit(staged, ingestion)


def settings_of(project: Project, **graph: Any) -> Settings:
    options = {"path": str(project.data), "time_zone": ZONE}
    project.configure(source={"name": "parquet", "options": options}, graph=graph)
    return load_settings(build_parser().parse_args(project.arguments("--date", DATE)))


class Graph:
    """A store whose hours are there, its settings, and what the job said of it."""

    summary: Summary

    def __init__(self, folder: Path) -> None:
        self.project = Project(folder)
        self.project.tracked = False
        self.settings = replace(settings_of(self.project), graph=RULES)
        self.store, self.tracking = self.project.store(), self.project.tracking_uri
        draw = random.Random(17)
        self.events = [row for hour in HOURS for row in events_of(hour, draw)]
        self.entities = entities()
        for table, rows in {"events": self.events, **self.entities}.items():
            put(self.store, table, rows, HOURS)

    def build(self, spark: SparkSession, dry: bool = False, **changes: Any) -> Summary:
        writer = claim(self.store, JOB, [LAST], "test")
        settings = replace(self.settings, **changes)
        return build(spark, self.store, settings, DATE, writer, dry)

    def rows(self) -> list[dict[str, Any]]:
        return self.store.read("edges", [LAST]).to_pylist()

    def completion(self) -> tuple[int, str]:
        done = self.store.ledger.readable("edges", LAST, LAST)[LAST]
        return done.rows, done.content_hash

    def forget(self) -> None:
        self.store.ledger.forget("edges", [LAST])


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory, migrated: Path, spark: SparkSession
) -> Iterator[Graph]:
    """The graph of the day, and its page in a database of its own."""
    graph = Graph(tmp_path_factory.mktemp("graph"))
    shutil.copy(migrated, graph.project.folder / "mlflow.db")
    graph.summary = graph.build(spark, tracking_uri=graph.tracking)
    yield graph
    graph.store.close()


def by_edge(rows: list[dict[str, Any]]) -> dict[Edge, Sums]:
    return {
        (r["source_type"], r["source_id"], r["target_type"], r["target_id"]): (
            r["weight"], r["events"], r["last_at"],
        )
        for r in rows
    }  # fmt: skip


def test_the_edges_are_those_of_a_loop(made: Graph) -> None:
    acted, stated = acted_by_hand(made.events), stated_by_hand(made.entities)
    by_source, by_target = heaviest(acted, 1), heaviest(acted, 3)
    assert len(by_source - by_target) > 10, "the cap works at either end"
    assert len(by_target - by_source) > 10
    expected = {edge: acted[edge] for edge in by_source & by_target} | stated
    found = by_edge(made.rows())
    assert found.keys() == expected.keys()
    for edge, (weight, count, last_at) in expected.items():
        assert found[edge] == (pytest.approx(weight, rel=1e-9), count, last_at), edge
    types = {(edge[0], edge[2]) for edge in found}
    assert types == {(edge.source, edge.target) for edge in EDGE_TYPES}
    assert made.summary.details["edges"] == {
        edge.name: sum((e[0], e[2]) == (edge.source, edge.target) for e in expected)
        for edge in EDGE_TYPES
    }
    of = made.summary.details["dropped"]
    assert sum(of.values()) == len(acted) - len(by_source & by_target)
    assert {"user-item", "query-item"} <= set(of) <= {"user-item", "user-room", "query-item"}
    assert made.summary.rejected == {"over_degree_cap": len(acted) - len(by_source & by_target)}


def test_nodes_are_counted_with_and_without_edges(made: Graph) -> None:
    edges = by_edge(made.rows())
    kept = {node for edge in edges for node in (edge[:2], edge[2:])}
    acted = acted_by_hand(made.events)
    before = {node for edge in acted for node in (edge[:2], edge[2:])}
    details = made.summary.details
    for name, count in details["nodes"].items():
        assert count == sum(node[0] == name for node in kept), name
        lost = sum(node[0] == name for node in before - kept)
        assert details["isolated"].get(name, 0) == lost, name
    assert details["isolated"]["user"] > 0, "the control: there is somebody to count"


def test_a_node_keeps_its_heaviest_edges_and_hubs_that_are_stated_keep_all(made: Graph) -> None:
    acted, found = acted_by_hand(made.events), by_edge(made.rows())
    degrees: dict[Any, int] = {}
    for edge in found:
        for end in (edge[:2], edge[2:]):
            degrees[edge[0], edge[2], end] = degrees.get((edge[0], edge[2], end), 0) + 1
    crawled = [edge for edge in acted if edge[:3] == ("user", "crawler", "item")]
    assert len(crawled) == 30
    assert degrees.get(("user", "item", ("user", "crawler")), 0) <= RULES.degree_cap
    most = {name: max(n for key, n in degrees.items() if key[:2] == name)
            for name in (("user", "item"), ("user", "room"), ("query", "item"),
                         ("item", "category"))}  # fmt: skip
    assert most.pop(("item", "category")) > RULES.degree_cap
    assert set(most.values()) == {RULES.degree_cap}


def test_rows_lie_in_order_and_each_edge_once(made: Graph) -> None:
    order = [edge.name for edge in EDGE_TYPES]
    keys = [
        (order.index(f"{r['source_type']}-{r['target_type']}"), r["source_id"], r["target_id"])
        for r in made.rows()
    ]
    assert keys == sorted(set(keys))
    assert {r["hour"] for r in made.rows()} == {LAST}


def test_what_arrives_afterwards_changes_nothing_and_a_rerun_is_the_same(
    made: Graph, spark: SparkSession
) -> None:
    before, snapshot = made.completion(), made.store.snapshot_id("edges")
    after = hr.add(LAST, 1)
    late = [{**row, "hour": after, "ingested_at": at(after)} for row in made.events[-40:]]
    put(made.store, "events", late, [after])
    moved = {"items": {"item_id": "i5", "category": "c8", "room_id": "r8"},
             "rooms": {"room_id": "r5", "host_id": "h8"},
             "room_items": {"item_id": "i5", "room_id": "r1", "core": True}}  # fmt: skip
    for table, row in moved.items():
        # valid since long, and learned of too late
        put(made.store, table, [{**row, "valid_from": at(DAY[0]), "hour": after}], [after])
    assert made.build(spark, tracking_uri=made.tracking).snapshots == {"edges": snapshot}
    assert made.completion() == before


def test_a_page_is_logged_once_a_day(made: Graph, tmp_path: Path) -> None:
    """The fixture's build and the rerun above logged one each."""
    client = mlflow.MlflowClient(made.tracking)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    assert experiment is not None
    [run] = client.search_runs([experiment.experiment_id])
    assert run.data.tags["data_hour"] == LAST
    assert run.data.params["half_life_days"] == "0.75"
    assert run.data.metrics["edges_user_item"] == made.summary.details["edges"]["user-item"]
    page = Path(client.download_artifacts(run.info.run_id, "graph.html", str(tmp_path))).read_text()
    assert f"<h1>Graph of {DATE}</h1>" in page
    assert page.count("<svg") == 2
    for name in ("user", "category", "user-item", "item-category"):
        assert f'<td data-name="type">{name}</td>' in page


def test_a_day_without_anything_has_a_page_as_well() -> None:
    none = Degrees.of({})
    empty = GraphStatistics(
        dict.fromkeys(NODE_TYPES, none),
        {edge.name: EdgeStatistics(0, 0, 0, none, none) for edge in EDGE_TYPES},
    )
    page = graph_page(GraphDay(DATE, DAY[0], LAST, 20, 4, RULES, empty))
    assert "0 nodes and 0 edges" in page
    assert "(20 hours, 4 others are not there)" in page
    assert page.count("<svg") == 1


def test_hours_that_no_task_can_hold_leave_the_same_table(
    made: Graph, spark: SparkSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written anew from another split of the events, and equal to the byte."""
    before, snapshot, rows = made.completion(), made.store.snapshot_id("edges"), made.rows()
    made.forget()
    monkeypatch.setattr(blocks, "TOGETHER", 5)
    made.build(spark)
    assert made.store.snapshot_id("edges") != snapshot
    assert (made.completion(), made.rows()) == (before, rows)


def test_a_dry_run_commits_nothing(made: Graph, spark: SparkSession) -> None:
    done = made.store.ledger.readable("edges", LAST, LAST)
    snapshot = made.store.snapshot_id("edges")
    made.forget()
    summary = made.build(spark, dry=True, tracking_uri="http://127.0.0.1:1")
    assert (summary.status, summary.snapshots, summary.mlflow_run_url) == ("dry-run", {}, None)
    assert summary.rows_out == made.summary.rows_out
    assert made.store.snapshot_id("edges") == snapshot
    with pytest.raises(RefusedError, match=f"edges of {DATE} .*build_graph.py --date {DATE}"):
        require_date(made.store, "edges", DATE, DAY, JOB)
    made.store.ledger.complete(list(done.values()))
    assert require_date(made.store, "edges", DATE, DAY, JOB) == LAST


def test_ties_are_kept_by_the_other_ends_id(spark: SparkSession) -> None:
    now = at(LAST)
    rows = [(0, "u1", f"i{n}", 1.0, 1, now) for n in (3, 1, 10, 2)] + [(5, "i1", "c1", 1.0, 1, now)]
    schema = "kind int, source_id string, target_id string, weight double, events bigint, last_at timestamp"  # noqa: E501
    found = capped(spark.createDataFrame(rows, schema), 2).collect()
    assert {(row.kind, row.target_id) for row in found if row.kept} == {
        (0, "i1"), (0, "i10"), (5, "c1")
    }  # fmt: skip
    assert len(found) == len(rows)


def test_hours_that_are_missing_are_named(project: Project) -> None:
    options = {"path": str(project.data), "time_zone": ZONE}
    project.configure(source={"name": "parquet", "options": options})
    result = project.run("build_graph", "--date", DATE)
    assert (result.code, "nothing is ingested yet" in result.err) == (3, True)
    store = project.store()
    put(store, "events", [], [hour for hour in DAY if hour != DAY[7]])
    store.ledger.validate("events", {DAY[9]: False})
    store.close()
    result = project.run("build_graph", "--date", DATE)
    assert result.code == 3
    assert f"events of {DAY[7]} is not there or not validated (2 of 24 hours" in result.err
    assert f"jobs/validate_events.py --from-hour {DAY[7]} --to-hour {DAY[9]}" in result.err
    assert "edges hours" not in project.state()


@pytest.mark.parametrize(
    ("arguments", "graph", "message"),
    [
        (["--date", "2026-11-31"], {}, "--date: '2026-11-31' is not a date"),
        (["--date", DATE], {"degree_cap": 0}, "section 'graph': degree_cap is 0"),
        (["--date", DATE], {"half_life_days": "7"}, "graph.half_life_days must be float, got '7'"),
        (["--date", DATE], {"half_life": 7}, "section 'graph' has unknown keys"),
        (["--date", DATE], {"action_weights": {"buy": 1}}, r"action_weights names ['buy']"),
    ],
)
def test_bad_arguments_are_refused(
    project: Project, arguments: list[str], graph: dict[str, Any], message: str
) -> None:
    project.configure(graph=graph)
    result = project.run("build_graph", *arguments)
    assert result.code == 2
    assert message in result.err


@pytest.mark.parametrize("arguments", [["--hour", LAST], ["--from-hour", LAST], []])
def test_only_a_date_is_taken(
    project: Project, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        build_parser().parse_args(project.arguments(*arguments))
    assert ended.value.code == 2
    assert "--date" in capsys.readouterr().err


def test_production_spells_the_defaults_out() -> None:
    document = yaml.safe_load((ROOT / "conf" / "production.yaml").read_text())
    assert GraphRules(**document["graph"]) == GraphRules()


@pytest.mark.shared
@pytest.mark.skipif(not KUAIRAND.is_dir(), reason="needs ../shared/data/kuairand")
def test_a_day_of_the_published_log(project: Project, spark: SparkSession) -> None:
    project.tracked, date = False, "2022-04-25"
    project.configure(source={"name": "kuairand", "options": {"path": str(KUAIRAND)}})
    given = project.arguments("--date", date)
    settings, store = load_settings(build_parser().parse_args(given)), project.store()
    day = hr.date_hours(date, ZONE)
    hours = hr.hour_range(settings.open_source().span()[0], day[-1])
    ingest(store, settings, hours, "test", False)
    store.ledger.validate("events", dict.fromkeys(hours, True))
    writer = claim(store, JOB, day[-1:], "test")
    found = build(spark, store, settings, date, writer, dry=False).details
    weights: dict[tuple[str, str], float] = {}
    for row in without_bots(store.read("events", hours)).to_pylist():
        weight = ACTION_WEIGHTS[row["action"]]
        if weight:
            edge = row["user_id"], row["item_id"]
            days = hr.difference(day[-1], row["hour"]) / 24
            weights[edge] = weights.get(edge, 0.0) + weight * 0.5 ** (days / 7)
    rows = store.read("edges", day[-1:]).to_pylist()
    got = {(row["source_id"], row["target_id"]): row["weight"] for row in rows
           if (row["source_type"], row["target_type"]) == ("user", "item")}  # fmt: skip
    assert got == pytest.approx(weights, rel=1e-9)
    assert len(got) > 5_000
    assert found["nodes"]["query"] == found["edges"]["query-item"] == 0
    assert min(count for name, count in found["nodes"].items() if name != "query") > 30
    store.close()
