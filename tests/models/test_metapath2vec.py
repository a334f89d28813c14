"""Node embeddings over days: one space, new nodes, vanished ones, neighbours, and the registry."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import mlflow
import numpy as np
import pyarrow as pa
import pytest

from models import EMBEDDINGS, ConfigError, ModelError, load_model, load_ranker
from models.graph.alignment import drift, rotation, unit
from models.graph.metapaths import MetapathError
from models.graph.neighbours import NeighbourIndex
from models.mechanical_check import check
from models.metapath2vec import Metapath2Vec, Metapath2VecConfig
from models.registry import Registry
from tests.models.graphs import edge_table, planted

# MLflow's own tables, under SQLAlchemy 2.1; only where the store is a database and no server.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader:DeprecationWarning")

MARKET = planted(classes=4, users=200, items=120, seed=3)
CONFIG = {
    "metapaths": ["user-item-user"],
    "skip_gram": {"dimensions": 16, "walks_per_node": 40, "walk_length": 20},
    "keep_days": 2,
}


def fitted(edges: pa.Table, day: str, earlier: Metapath2Vec | None = None, **config: object):
    model = Metapath2Vec.build({**CONFIG, **config})
    return model, model.fit_edges(edges, day, earlier)


def asked(*nodes: tuple[str, str]) -> pa.Table:
    kinds, ids = zip(*nodes, strict=True)
    return pa.table({"node_type": list(kinds), "node_id": list(ids)})


@pytest.fixture(scope="module")
def first() -> Metapath2Vec:
    return fitted(MARKET.edges, "2026-11-09")[0]


def test_the_zoo_knows_it_and_a_ranker_is_something_else(first, tmp_path):
    assert EMBEDDINGS["metapath2vec"] is Metapath2Vec
    first.save(tmp_path)
    assert isinstance(load_model(tmp_path), Metapath2Vec)
    with pytest.raises(ModelError, match="metapath2vec, which ranks nothing"):
        load_ranker(tmp_path)


def test_what_is_loaded_is_what_was_saved_to_the_bit(first, tmp_path):
    first.save(tmp_path)
    again = Metapath2Vec.load(tmp_path)
    assert again.table().equals(first.table())
    assert (again.day, again.embedding_version, again.config) == (
        first.day, first.embedding_version, first.config,
    )  # fmt: skip
    assert again.spec.sha == first.spec.sha
    (tmp_path / "embeddings.parquet").write_bytes(b"PAR1")
    with pytest.raises(ModelError, match="register the model again"):
        Metapath2Vec.load(tmp_path)


def test_the_next_day_is_in_the_same_space_and_says_how_far_it_moved(first):
    changed = pa.concat_tables([MARKET.edges.slice(40), edge_table([
        ("user", "u0", "item", "fresh", 5.0), ("user", "u1", "item", "fresh", 5.0),
    ])])  # fmt: skip
    second, report = fitted(changed, "2026-11-10", first)
    assert second.embedding_version == first.embedding_version == "2026-11-09"
    assert report.drift is not None and report.fresh == 1
    assert report.drift.cosine > 0.8
    assert report.metrics()["drift_cosine"] == report.drift.cosine
    scratch, alone = fitted(changed, "2026-11-10")
    assert alone.drift is None and scratch.embedding_version == "2026-11-10"
    shared = scratch.nodes.filter(pa.array(first.places(scratch.nodes) >= 0))
    now, before = scratch.vectors[scratch.places(shared)], first.vectors[first.places(shared)]
    unrelated = drift((now @ rotation(now, before)).astype(np.float32), before, seed=7)
    assert report.drift.cosine > unrelated.cosine
    assert report.drift.neighbours > unrelated.neighbours
    assert second.lookup(asked(("item", "fresh"))).null_count == 0


def test_vectors_are_turned_back_onto_yesterdays_axes(first):
    """Turned by any rotation, today's vectors come back to yesterday's."""
    turn, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(16, 16)))
    turned = (first.vectors @ turn).astype(np.float32)
    back = turned @ rotation(turned, first.vectors)
    assert np.allclose(back, first.vectors, atol=1e-4)
    found = drift(back.astype(np.float32), first.vectors, seed=0)
    assert found.cosine == pytest.approx(1.0, abs=1e-5) and found.neighbours > 0.99
    assert drift(turned, first.vectors, seed=0).cosine < 0.6


def test_a_day_that_has_nothing_to_do_with_the_last_begins_a_space(first):
    other = planted(classes=4, users=200, items=120, seed=99).edges
    second, report = fitted(other, "2026-11-10", first, same_space=0.99)
    assert report.drift is not None and report.drift.cosine < 0.99
    assert second.embedding_version == "2026-11-10"
    assert report.kept == 0, "a vector of the old space must not stand among those of the new"


def test_a_node_that_vanishes_keeps_its_vector_for_some_days(first):
    without = MARKET.edges.filter(pa.array(
        [name != "u7" for name in MARKET.edges["source_id"].to_pylist()]
    ))  # fmt: skip
    node, model = asked(("user", "u7")), first
    before = first.lookup(node)
    for day in ("2026-11-10", "2026-11-11"):
        model, report = fitted(without, day, model)
        assert (report.kept, report.aged) == (1, 0)
        assert model.lookup(node).equals(before)
        [row] = [r for r in model.nodes.to_pylist() if r["node_id"] == "u7"]
        assert row["last_seen"] == "2026-11-09"
    model, report = fitted(without, "2026-11-12", model)
    assert (report.kept, report.aged) == (0, 1)
    assert model.lookup(node).null_count == 1


def test_a_new_node_starts_among_its_neighbours(first):
    """With a learning rate of nearly nothing it stays where it starts: their weighted mean."""
    near = ["i1", "i2"]
    edges = pa.concat_tables([MARKET.edges, edge_table([
        ("user", "newcomer", "item", near[0], 1.0), ("user", "newcomer", "item", near[1], 3.0),
    ])])  # fmt: skip
    still = {**CONFIG["skip_gram"], "learning_rate": 1e-9, "final_rate": 1e-10}
    second, _ = fitted(edges, "2026-11-10", first, skip_gram=still)
    of = np.stack([first.vectors[p] for p in first.places(asked(*(("item", n) for n in near)))])
    found = second.vectors[second.places(asked(("user", "newcomer")))[0]]
    assert np.allclose(found, (of[0] + 3 * of[1]) / 4, atol=1e-4)


def test_vectors_and_neighbours_are_looked_up(first):
    nodes = asked(("user", "u3"), ("item", "i5"), ("item", "nobody"), ("shop", "s"))
    assert first.lookup(nodes).is_null().to_pylist() == [False, False, True, True]
    assert np.isnan(first.probe(nodes)).tolist() == [False, False, True, True]
    found = first.neighbours(nodes, k=4)
    assert found[2] is None and found[3] is None
    vectors, names = unit(first.vectors), first.nodes["node_id"].to_pylist()
    kinds = np.array(first.nodes["node_type"].to_pylist())
    place = names.index("i5")
    cosines = np.where(kinds == "item", vectors @ vectors[place], -2.0)
    cosines[place] = -2.0
    best = np.argsort(-cosines)[:4]
    assert list(found[1].ids) == [names[n] for n in best]
    assert np.allclose(found[1].cosines, cosines[best], atol=1e-5)
    [across] = first.neighbours(asked(("user", "u3")), of_type="item", k=1)
    assert across.ids[0].startswith("i")
    with pytest.raises(ModelError, match="no node has the type 'room'"):
        first.neighbours(asked(("user", "u3")), of_type="room")


def test_the_index_finds_nearly_all_that_comparing_with_everybody_finds():
    vectors = unit(np.random.default_rng(0).normal(size=(25_000, 16)).astype(np.float32))
    index, exact = NeighbourIndex(vectors), NeighbourIndex(vectors, exact=True)
    assert not index.exact and exact.exact
    found = [i.search(vectors[:200], 10)[0] for i in (index, exact)]
    shared = [len(np.intersect1d(a, b)) for a, b in zip(*found, strict=True)]
    assert np.mean(shared) > 9.5


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"metapaths": []}, "list at least one"),
        ({"metapaths": ["user"]}, "no metapath"),
        ({"keep_days": -1}, "keep_days is -1"),
        ({"same_space": 2.0}, "same_space is 2.0"),
        ({"skip_gram": {"parts": 3}}, "parts is 3"),
        ({"skip_gram": {"walk_length": 1}}, "walk_length is 1"),
        ({"skip_gram": {"learning_rate": -1.0}}, "learning rate"),
        ({"skip_gram": {"width": 3}}, "width"),
        ({"skip_gram": 3}, "skip_gram must be a mapping"),
        ({"span": 3}, "span"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(config, said):
    with pytest.raises(ConfigError, match=said):
        Metapath2VecConfig.from_dict(config)


def test_a_graph_that_cannot_be_walked_and_vectors_of_another_width_are_refused(first):
    with pytest.raises(MetapathError, match="step 1, user-user"):
        fitted(MARKET.edges, "2026-11-10", metapaths=["user-user", "user-room"])
    told: list[str] = []
    some = Metapath2Vec.build({**CONFIG, "metapaths": ["user-user", "user-item-user"]})
    some.fit_edges(MARKET.edges, "2026-11-10", progress=told.append)
    assert any("left out: metapath user-user" in line for line in told)
    narrow = {**CONFIG["skip_gram"], "dimensions": 8}
    with pytest.raises(ConfigError, match="have 16 dimensions"):
        fitted(MARKET.edges, "2026-11-10", first, skip_gram=narrow)


def test_it_is_registered_and_brought_back_and_runs_as_a_pyfunc(
    first: Metapath2Vec, tmp_path: Path, registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    first.save(tmp_path / "model")
    example = first.nodes.select(["node_type", "node_id"]).slice(0, 5)
    given = {
        "run_key": "metapath2vec|a", "folder": tmp_path / "model", "spec": first.spec,
        "metrics": {"fit_loss": 1.0}, "params": first.config_dict(),
        "tags": {"code_version": "1", "embedding_version": first.embedding_version},
        "input_example": example, "plots": {}, "description": "vectors", "guard": lambda: None,
        "handoff": {"data_hour": "2026-11-09T15", "trained_hours": ["2026-11-09T15"] * 2,
                    "iceberg_snapshots": {"edges": 1}},
    }  # fmt: skip
    version = registry.register("metapath2vec", **given)
    assert registry.register("metapath2vec", **given) == version
    loaded = registry.load_model("metapath2vec", version.version)
    assert loaded.model.table().equals(first.table())
    assert check(registry, "metapath2vec", version.version) == 5
    monkeypatch.setenv("MLFLOW_TRACKING_URI", registry.tracking_uri)
    served = mlflow.pyfunc.load_model(f"models:/{version.model_id}")
    out = served.predict(example.to_pandas(), params={"k": 3, "of_type": "user"})
    near = first.neighbours(example, of_type="user", k=3)
    assert [list(row) for row in out["neighbours"]] == [list(n.ids) for n in near]
    assert np.array_equal(np.stack(out["vector"].to_list()), first.vectors[:5])
    unknown = served.predict(asked(("user", "nobody")).to_pandas())
    assert unknown["vector"][0] is None and unknown["neighbours"][0] is None


def test_two_configurations_are_two_models():
    base = Metapath2VecConfig.from_dict(CONFIG)
    assert base == Metapath2VecConfig.from_dict({**CONFIG})
    assert dataclasses.replace(base, keep_days=3) != base
