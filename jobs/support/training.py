"""What every job that trains does the same: held-out groups, snapshot tags, registration."""

from __future__ import annotations

import importlib.metadata
import tempfile
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.tables import Store, Writer
from jobs.support.plans import Plan
from jobs.support.provenance import Provenance
from jobs.support.snapshot_tags import snapshot_tag
from models import FitReport, Ranker
from models.registry import Registry, Version

__all__ = ["Fitted", "held_out", "keep_snapshots", "parted", "reading_guard", "register", "split"]

_VALID_SHARE: Final = 10
"""One group in so many, by the hash of its id, is kept for early stopping."""
_EXAMPLE_ROWS: Final = 5


@dataclass(frozen=True)
class Fitted:
    """A fitted model with all that its version says of it.

    Attributes:
        example: rows that hold the spec's columns; the first few are registered.
        more: entries of the hand-off beside those that every version has.
        numbers: metrics beside those that every version has.
    """

    model: Ranker
    report: FitReport
    training: Provenance
    example: pa.Table
    plots: Mapping[str, Any]
    description: str
    more: Mapping[str, Any] = field(default_factory=dict)
    numbers: Mapping[str, float] = field(default_factory=dict)


def held_out(groups: pa.Array | pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    """Which rows belong to the groups (10 % by the hash of the group's id) that stop a fit early.

    Args:
        groups: ``group_id`` of the rows.
    """
    whole = groups.combine_chunks() if isinstance(groups, pa.ChunkedArray) else groups
    encoded = whole.dictionary_encode()
    held = [zlib.crc32(g.encode()) % _VALID_SHARE == 0 for g in encoded.dictionary.to_pylist()]
    marked: npt.NDArray[np.bool_] = np.array(held, dtype=bool)[encoded.indices.to_numpy()]
    return marked


def split(table: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Rows to fit on, and whole groups (10 % by the hash of the group's id) to stop early on."""
    return parted(dict(zip(table.column_names, table.columns, strict=True)), table.schema)


def parted(columns: dict[str, pa.ChunkedArray], schema: pa.Schema) -> tuple[pa.Table, pa.Table]:
    """As :func:`split`; every column leaves ``columns`` once it is parted, so that a caller who
    keeps no other reference holds the rows once, not twice."""
    held = pa.array(held_out(columns["group_id"]))
    parts = pc.invert(held), held
    made: tuple[list[pa.ChunkedArray], list[pa.ChunkedArray]] = [], []
    for name in schema.names:
        column = columns.pop(name)
        for part, mask in zip(made, parts, strict=True):
            part.append(column.filter(mask))
    rows, stopping = (pa.Table.from_arrays(part, schema=schema) for part in made)
    return rows, stopping


def reading_guard(store: Store, chosen: Plan, writer: Writer) -> Callable[[], None]:
    """A check, right before a version is created, that no later run took over."""

    def guard() -> None:
        with store.ledger.holding(writer.stage, [chosen.hour], writer.token):
            pass

    return guard


def keep_snapshots(store: Store, chosen: Plan) -> None:
    """Tag the snapshots that were read, for as long as the model is kept."""
    for table, snapshot in chosen.lineage.snapshots.items():
        store.tag(table, snapshot, snapshot_tag(chosen.name, chosen.hour, snapshot))


def register(
    registry: Registry, chosen: Plan, fitted: Fitted, guard: Callable[[], None]
) -> Version:
    """Register what ``chosen`` planned, once."""
    hours, training = chosen.lineage.hours, fitted.training
    with tempfile.TemporaryDirectory(prefix="rankmill-") as scratch:
        folder = Path(scratch) / "model"
        fitted.model.save(folder)
        return registry.register(
            chosen.name,
            chosen.run_key,
            folder,
            chosen.spec,
            metrics={**fitted.report.metrics(), **training.metrics(), **fitted.numbers},
            params={"family": chosen.family, **fitted.model.config_dict()},
            tags={
                "code_version": importlib.metadata.version("rankmill"),
                "run_hour": chosen.hour,
                "feature_service": chosen.service.name,
                "training_set_sha": training.sha256,
            },
            input_example=fitted.example.slice(0, _EXAMPLE_ROWS).select(list(chosen.spec.columns)),
            plots={**fitted.plots, "censored_labels": training.figure()},
            description=fitted.description,
            guard=guard,
            handoff={
                "data_hour": hours[-1],
                "trained_hours": [hours[0], hours[-1]],
                "iceberg_snapshots": dict(chosen.lineage.snapshots),
                "cut": chosen.hour,
                "content_sha": chosen.lineage.content_sha,
                "training_set": training.handoff(),
                **fitted.more,
            },
        )
