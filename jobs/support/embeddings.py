"""Node embeddings by day: what a day's vectors are made from, known before any edge is read."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pyarrow as pa

from feature_store import hours as hr
from feature_store.graph import EDGE_TYPES, NODE_TYPES
from feature_store.tables import Store
from jobs.support.settings import Settings, SettingsError
from jobs.support.unseen import newest_before
from models import EMBEDDINGS
from models.base import ConfigError
from models.graph.report import EmbeddingReport
from models.metapath2vec import Metapath2Vec
from models.registry import Registry, Version

__all__ = [
    "EmbeddingPlan",
    "configured",
    "embedding_before",
    "embedding_plan",
    "is_embedding",
    "node_rows",
    "register_embedding",
]

_EXAMPLE_ROWS: Final = 5


def is_embedding(name: str) -> bool:
    """Whether ``name`` is registered node embeddings."""
    return name in EMBEDDINGS


@dataclass(frozen=True)
class EmbeddingPlan:
    """What the vectors of a day are trained from.

    Attributes:
        date: the business day; ``hour`` its last hour, under which its edges and vectors stand.
        content: hash of the day's edges, ``snapshot`` the one that holds them; None without any.
        config: the model's configuration, complete.
        earlier: the version that training goes on from; None for one from scratch.
    """

    name: str
    date: str
    hour: str
    content: str | None
    snapshot: int | None
    config: Mapping[str, Any]
    earlier: Version | None

    @property
    def run_key(self) -> str:
        """Name, day, configuration, edges and start: the same key, the same vectors."""
        start = self.earlier.tags["run_key"] if self.earlier else None
        known = json.dumps([self.config, start], sort_keys=True)
        sha = hashlib.sha256(known.encode()).hexdigest()
        return f"{self.name}|{self.hour}|{sha[:12]}|{(self.content or '')[:12]}"


def configured(settings: Settings) -> Metapath2Vec:
    """An unfitted model of the configuration.

    Raises:
        SettingsError: for a value that the model refuses, or a metapath with a step that no edge
            type of ``feature_store.graph`` makes.
    """
    try:
        model = Metapath2Vec.build(settings.embedding)
        for path in model.config.paths():
            path.check(NODE_TYPES, [(edge.source, edge.target) for edge in EDGE_TYPES])
    except ConfigError as error:
        raise SettingsError(f"configuration embedding: {error}") from error
    return model


def embedding_plan(
    store: Store, registry: Registry, settings: Settings, name: str, date: str, hour: str,
    from_scratch: bool = False,
) -> EmbeddingPlan:  # fmt: skip
    """The vectors of ``date``, whose last hour is ``hour``, going on from those of the newest day
    before it.

    Raises:
        SettingsError: for a configuration that the model refuses.
    """
    config = configured(settings).config_dict()
    there = store.ledger.readable("edges", hour, hour).get(hour)
    earlier = newest_before(registry, name, hour)
    return EmbeddingPlan(
        name, date, hour, there.content_hash if there else None, store.snapshot_id("edges"),
        config, None if from_scratch else earlier,
    )  # fmt: skip


def embedding_before(registry: Registry, name: str, hour: str) -> Version | None:
    """The newest version of the day that ends with the start of ``hour``."""
    found = registry.of_time(name, "data_hour", hr.add(hour, -1))
    return max(found, key=lambda version: version.version, default=None)


def node_rows(model: Metapath2Vec, hour: str) -> pa.Table:
    """Rows of the table ``node_embeddings``."""
    table = model.table().drop_columns(["context"])
    vectors = table["vector"].cast(pa.list_(pa.float32()))
    table = table.set_column(table.schema.get_field_index("vector"), "vector", vectors)
    for name, value in (("embedding_version", model.embedding_version), ("hour", hour)):
        table = table.append_column(name, pa.array([value] * len(table), pa.string()))
    return table


def register_embedding(
    registry: Registry, plan: EmbeddingPlan, model: Metapath2Vec, report: EmbeddingReport,
    pages: Mapping[str, Any], guard: Callable[[], None],
) -> Version:  # fmt: skip
    """Register the vectors of a plan, once."""
    edges = sum(report.edges.values())
    start = f"from version {plan.earlier.version}" if plan.earlier else "from scratch"
    with tempfile.TemporaryDirectory(prefix="rankmill-") as scratch:
        folder = Path(scratch) / "model"
        model.save(folder)
        return registry.register(
            plan.name,
            plan.run_key,
            folder,
            model.spec,
            metrics=report.metrics(),
            params={"family": model.family, **_flat(model.config_dict())},
            tags={
                "code_version": importlib.metadata.version("rankmill"),
                "run_hour": plan.hour,
                "embedding_version": model.embedding_version,
            },
            input_example=model.nodes.select(list(model.spec.columns)).slice(0, _EXAMPLE_ROWS),
            plots=pages,
            description=(
                f"Vectors of {len(model.nodes):,} nodes of the graph of {plan.date} "
                f"({edges:,} edges), {start}, in space {model.embedding_version}."
            ),
            guard=guard,
            handoff={
                "data_hour": plan.hour,
                "trained_hours": [plan.hour, plan.hour],
                "iceberg_snapshots": {"edges": plan.snapshot},
                "content_sha": plan.content,
                "embedding_version": model.embedding_version,
                "metapaths": list(model.config.metapaths),
                "nodes": model.counts(),
                "edges": dict(report.edges),
            },
            history={"loss": report.trained.losses},
        )


def _flat(config: Mapping[str, Any]) -> dict[str, Any]:
    inner = config["skip_gram"]
    return {**{k: v for k, v in config.items() if k != "skip_gram"}, **inner}
