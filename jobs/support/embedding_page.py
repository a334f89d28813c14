"""What people look at in a version of node embeddings: a map, neighbours, losses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.table_spec import USER_NODE
from jobs.support.page import page, section, table
from models.graph.report import EmbeddingReport
from models.metapath2vec import Metapath2Vec
from models.plots import lines_figure, projection_figure

__all__ = ["NEIGHBOURS", "embedding_artefacts"]

NEIGHBOURS: Final = "neighbours.html"
"""The page that names nodes, among the plots of a version's run."""

_POPULAR: Final = 10
_NEAR: Final = 5
_MAPPED: Final = 5000


def embedding_artefacts(
    model: Metapath2Vec, report: EmbeddingReport, edges: pa.Table
) -> Mapping[str, Any]:
    """Figures and a page, by file name."""
    losses = np.array(report.trained.losses)
    rounds = np.arange(1, len(losses) + 1)
    found: dict[str, Any] = {
        "loss": lines_figure("Skip-gram", ("round", "loss of a pair"), rounds, {"loss": losses}),
        NEIGHBOURS: _page(model, report),
    }
    mapped = _map(model, edges)
    return found if mapped is None else {**found, "map_of_items": mapped}


def _page(model: Metapath2Vec, report: EmbeddingReport) -> str:
    counts = model.counts()
    words = (
        f"{len(model.nodes):,} nodes of the graph of {model.day} in space "
        f"{model.embedding_version}. {report.fresh:,} are new, {report.kept:,} were seen on an "
        f"earlier day only, {report.aged:,} aged out."
    )
    if report.drift is not None and report.drift.nodes:
        words += (
            f" Against the day before: mean cosine {report.drift.cosine:.3f}, "
            f"{report.drift.neighbours:.0%} of the ten nearest nodes kept."
        )
    rows = [
        [kind, f"{counts.get(kind, 0):,}", f"{nodes:,}"] for kind, nodes in report.nodes.items()
    ]
    parts = [
        section(
            "Nodes",
            table(
                ["type", "with a vector", "in the graph"], rows, ("with a vector", "in the graph")
            ),
        )
    ]
    edge_rows = [[kind, f"{count:,}"] for kind, count in report.edges.items()]
    parts.append(section("Edges", table(["type", "edges"], edge_rows, ("edges",))))
    parts.append(
        section("Neighbours of the ten most visited nodes that are no users", _neighbours(model))
    )
    return page(f"Node embeddings of {model.day}", words, *parts)


def _neighbours(model: Metapath2Vec) -> str:
    """Users are left out: pages name nobody."""
    named = model.nodes.filter(pc.not_equal(model.nodes["node_type"], USER_NODE))
    order = pc.sort_indices(named, sort_keys=[("visits", "descending"), ("node_id", "ascending")])
    popular = named.take(order[:_POPULAR])
    near = model.neighbours(popular, k=_NEAR)
    rows: list[Sequence[str]] = []
    for node, found in zip(popular.to_pylist(), near, strict=True):
        named = [] if found is None else [
            f"{name} ({cosine:.2f})" for name, cosine in zip(found.ids, found.cosines, strict=True)
        ]  # fmt: skip
        rows.append([f"{node['node_type']} {node['node_id']}", f"{node['visits']:,}",
                     ", ".join(named)])  # fmt: skip
    return table(["node", "visits", "nearest of its type, with cosine"], rows, ("visits",))


def _map(model: Metapath2Vec, edges: pa.Table) -> Any | None:
    """The most visited items on the two main axes of their vectors, coloured by category."""
    kinds = pc.and_(
        pc.equal(edges["source_type"], "item"), pc.equal(edges["target_type"], "category")
    )
    known = edges.filter(kinds)
    if not known.num_rows:
        return None
    category = dict(
        zip(known["source_id"].to_pylist(), known["target_id"].to_pylist(), strict=True)
    )
    place = np.flatnonzero(pc.equal(model.nodes["node_type"], "item").to_numpy())
    visits = model.nodes["visits"].to_numpy()[place]
    place = place[np.argsort(-visits, kind="stable")][:_MAPPED]
    names = model.nodes["node_id"].take(pa.array(place)).to_pylist()
    there = np.array([name in category for name in names], dtype=bool)
    if there.sum() < 2:
        return None
    labels = [category[name] for name in names if name in category]
    return projection_figure("Items by category", model.vectors[place[there]], labels)
