"""embed_graph: a day's edges in; vectors, a version, and the alias out."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from feature_store import hours as hr
from feature_store.tables import HourWriter, Staged, Store, Writer
from jobs.support.fencing import claim
from models.metapath2vec import Metapath2Vec
from models.registry import Registry
from tests.jobs.conftest import Project
from tests.models.graphs import planted

pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")

DAY, NEXT = "2026-11-10", "2026-11-11"
EMBEDDING = {
    "metapaths": ["user-item-user"],
    "skip_gram": {"dimensions": 8, "walks_per_node": 2, "walk_length": 10},
}


def last_hour(date: str) -> str:
    return hr.date_hours(date, "UTC")[-1]


def put_edges(store: Store, date: str, edges: pa.Table) -> None:
    """The edges of ``date`` as build_graph leaves them."""
    hour = last_hour(date)
    writer: Writer = claim(store, "build_graph", [hour], "test")
    count = edges.num_rows
    rows = edges.append_column("events", pa.array([1] * count))
    rows = rows.append_column("last_at", pa.array([hr.start_of(hour)] * count))
    rows = rows.append_column("hour", pa.array([hour] * count))
    staged, part = Staged("edges"), HourWriter(store, "edges", hour)
    part.write(rows)
    part.close(staged)
    store.commit(staged, writer)


@pytest.fixture
def graph(project: Project) -> Project:
    project.configure(embedding=EMBEDDING)
    put_edges(project.store(), DAY, planted(classes=3, users=60, items=40, seed=1).edges)
    return project


def committed(store: Store, date: str) -> pa.Table:
    return store.read("node_embeddings", [last_hour(date)])


def test_a_day_is_embedded_once_and_a_rerun_changes_nothing(graph: Project) -> None:
    result = graph.run("embed_graph", "--date", DAY)
    assert result.code == 0 and result.summary["status"] == "done"
    assert result.summary["model"] == {"name": "metapath2vec", "version": 1}
    store, rows = graph.store(), committed(graph.store(), DAY)
    assert (
        rows.num_rows
        == result.summary["rows_out"]
        == sum(result.summary["details"]["nodes"].values())
    )
    assert set(rows["embedding_version"].to_pylist()) == {DAY}
    before = store.snapshot_id("node_embeddings")
    again = graph.run("embed_graph", "--date", DAY)
    assert again.summary["status"] == "unchanged"
    assert store.snapshot_id("node_embeddings") == before
    registry = Registry(graph.tracking_uri)
    assert len(registry.versions("metapath2vec")) == 1
    loaded = registry.load_model("metapath2vec", 1)
    assert isinstance(loaded.model, Metapath2Vec)
    assert loaded.model.nodes["node_id"].to_pylist() == rows["node_id"].to_pylist()
    assert loaded.handoff["data_hour"] == last_hour(DAY)
    assert loaded.handoff["iceberg_snapshots"] == {"edges": store.snapshot_id("edges")}
    assert loaded.handoff["metapaths"] == ["user-item-user"]


def test_a_run_that_ended_before_it_registered_is_made_whole(
    graph: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    from jobs import embed_graph

    def stop(*_: Any, **__: Any) -> None:
        raise RuntimeError("killed")

    with monkeypatch.context() as broken:
        broken.setattr(embed_graph, "register_embedding", stop)
        assert graph.run("embed_graph", "--date", DAY).code == 1
    rows, before = committed(graph.store(), DAY), graph.store().snapshot_id("node_embeddings")
    result = graph.run("embed_graph", "--date", DAY)
    assert result.summary["model"]["version"] == 1
    assert committed(graph.store(), DAY).equals(rows)
    assert graph.store().snapshot_id("node_embeddings") == before


def test_the_next_day_goes_on_from_it_in_its_space_and_the_alias_follows(graph: Project) -> None:
    assert graph.run("embed_graph", "--date", DAY).code == 0
    promoted = graph.run("promote", "--name", "metapath2vec", "--date", DAY)
    assert promoted.summary["status"] == "promoted"
    put_edges(graph.store(), NEXT, planted(classes=3, users=60, items=40, seed=1).edges.slice(20))
    result = graph.run("embed_graph", "--date", NEXT)
    details = result.summary["details"]
    assert details["embedding_version"] == DAY and details["drift_cosine"] > 0.5
    assert set(committed(graph.store(), NEXT)["embedding_version"].to_pylist()) == {DAY}
    assert graph.run("promote", "--name", "metapath2vec", "--date", NEXT).code == 0
    registry = Registry(graph.tracking_uri)
    champion = registry.alias("metapath2vec", "champion")
    assert champion is not None and champion.version == 2
    back = graph.run("promote", "--name", "metapath2vec", "--date", DAY)
    assert back.summary["status"] == "promoted", "a decision that was made stands"
    champion = registry.alias("metapath2vec", "champion")
    assert champion is not None and champion.version == 2, "an alias never moves back in data time"
    scratch = graph.run("embed_graph", "--date", NEXT, "--from-scratch")
    assert scratch.summary["details"]["embedding_version"] == NEXT


def test_a_dry_run_commits_and_registers_nothing(graph: Project) -> None:
    result = graph.run("embed_graph", "--date", DAY, "--dry-run")
    assert result.code == 0 and result.summary["status"] == "dry-run"
    assert graph.store().snapshot_id("node_embeddings") is None
    assert Registry(graph.tracking_uri).versions("metapath2vec") == []


@pytest.mark.parametrize(
    ("embedding", "code", "said"),
    [
        ({**EMBEDDING, "metapaths": ["user-shop-user"]}, 2, "no node has the type 'shop'"),
        ({**EMBEDDING, "metapaths": ["user-user"]}, 2, "step 1, user-user, has no edge type"),
        ({**EMBEDDING, "metapath": []}, 2, "metapath"),
        ({"skip_gram": {"parts": 3}}, 2, "parts is 3"),
        ([1], 2, "must be a mapping"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_committed(
    graph: Project, embedding: Any, code: int, said: str
) -> None:
    graph.configure(embedding=embedding)
    result = graph.run("embed_graph", "--date", DAY)
    assert result.code == code
    assert said in result.summary["message"]
    assert graph.store().snapshot_id("node_embeddings") is None


def test_a_day_with_nothing_to_walk_is_skipped(graph: Project) -> None:
    graph.configure(embedding={**EMBEDDING, "metapaths": ["user-room-user"]})
    put_edges(graph.store(), NEXT, planted(classes=3, users=60, items=40, seed=1).edges.slice(0, 0))
    for date, said in ((DAY, "no node has the type 'room'"), (NEXT, "no edges")):
        result = graph.run("embed_graph", "--date", date)
        assert (result.code, result.summary["status"]) == (0, "skipped")
        assert said in result.summary["message"]
    assert Registry(graph.tracking_uri).versions("metapath2vec") == []


def test_a_day_without_edges_names_the_command_that_makes_them(graph: Project) -> None:
    result = graph.run("embed_graph", "--date", NEXT)
    assert result.code == 3
    assert f"spark-submit jobs/build_graph.py --date {NEXT}" in result.summary["message"]
    missing = graph.run("promote", "--name", "metapath2vec", "--date", NEXT)
    assert (missing.code, missing.summary["status"]) == (0, "skipped")
    assert "embed_graph.py" in missing.summary["message"]
