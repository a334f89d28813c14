"""The edges of a day as Spark makes them: rows meet by edge, nodes keep their heaviest ones.

Nothing that grows with events, nodes or edges passes the driver. ``kind`` is a type's place in
``EDGE_TYPES``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Final

import pyarrow as pa
from pyspark.sql import Column, DataFrame, Row, SparkSession, Window
from pyspark.sql import functions as F  # noqa: N812
from pyspark.sql.pandas.types import from_arrow_schema

from feature_store import storage
from feature_store.counting import without_bots
from feature_store.graph import EDGE_TYPES, NODE_TYPES, GraphRules
from feature_store.graph_edges import (
    COUNTED,
    EVENT_COLUMNS,
    FACTS,
    STATED,
    WEIGHTED,
    counted,
    declared,
    fact_columns,
    stated,
    weighted,
)
from feature_store.graph_statistics import Degrees, EdgeStatistics, GraphStatistics
from feature_store.parts import Target
from feature_store.spark_io import meet, read_files, read_hours

if TYPE_CHECKING:  # workers import this module: the catalog's packages would cost each a second
    from feature_store.tables import Store

__all__ = ["EDGE_TARGET", "acted_edges", "capped", "stated_edges", "statistics"]

EDGE_TARGET: Final = Target("edges", ("kind", "source_id", "target_id"), declared)
"""Where kept edges go."""

_EDGE: Final = ("kind", "source_id", "target_id")
_BOTH: Final = 2
"""An edge is kept that both its ends keep."""


def acted_edges(
    spark: SparkSession, store: Store, hours: Sequence[str], last: str, rules: GraphRules,
    partitions: int, together: bool,
) -> DataFrame:  # fmt: skip
    """Edges from what users, bots left out, did in ``hours``: rows of ``WEIGHTED``, one per edge.

    Args:
        last: the day's last hour, from which ages are counted.
        partitions: in which counts meet by edge, at least.
        together: whether a task can hold the events of any one hour; of larger ones those of a
            user meet first, since it takes all of them to know a bot.
    """
    schema = from_arrow_schema(COUNTED)

    def count(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        pieces = list(batches)
        if pieces:
            people = without_bots(pa.Table.from_batches(pieces))
            yield from counted(people, last, rules).to_batches()

    def count_hours(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for paths in batch["paths"].to_pylist():
                pieces = [storage.read_table(path, EVENT_COLUMNS) for path in paths]
                yield from count(iter(pa.concat_tables(pieces).to_batches()))

    def weigh(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        pieces = list(batches)
        if pieces:
            yield from weighted(pa.Table.from_batches(pieces), rules).to_batches()

    if together:
        files = [(paths,) for paths in store.files_by_hour("events", hours).values() if paths]
        listed = spark.createDataFrame(files, "paths array<string>")
        counts = listed.mapInArrow(count_hours, schema)
    else:
        events = read_hours(spark, store, "events", hours, EVENT_COLUMNS)
        counts = meet(events, ("hour", "user_id"), partitions).mapInArrow(count, schema)
    return meet(counts, _EDGE, partitions).mapInArrow(weigh, from_arrow_schema(WEIGHTED))


def stated_edges(spark: SparkSession, store: Store, known: Sequence[str], first: str) -> DataFrame:
    """Edges from what was known at the day's end: rows of ``WEIGHTED``, one per edge.

    Args:
        known: every hour of the store up to the day's last.
        first: the window's first hour.
    """

    def read(rows: pa.Table, number: int) -> pa.Table:
        return stated(rows, number, first)

    tables = {fact.table: store.files(fact.table, known) for _, fact in FACTS}
    files = [(number, path) for number, (_, fact) in enumerate(FACTS)
             for path in tables[fact.table]]  # fmt: skip
    columns = {number: fact_columns(number) for number in range(len(FACTS))}
    rows = read_files(spark, files, from_arrow_schema(STATED), read, columns)
    edges = _counting(rows).where("target_id IS NOT NULL").groupBy(*_EDGE)
    summed = edges.agg(F.sum("events").alias("events"), F.max("last_at").alias("last_at"))
    weight = F.element_at(_literals([edge.weight for edge in EDGE_TYPES]), F.col("kind") + 1)
    return summed.withColumn("weight", weight).select(*WEIGHTED.names)


def _counting(rows: DataFrame) -> DataFrame:
    """Of rows of ``STATED`` what counts: ``kind``, the ends, ``events``, the rows behind them, and
    ``last_at``. Grain: one row per fact, source and target; where only the newest row of a source
    counts, one per fact and source."""
    alone = F.col("fact").isin([n for n, (_, fact) in enumerate(FACTS) if fact.newest])
    said = rows.groupBy("fact", "source_id", F.when(~alone, F.col("target_id"))).agg(
        F.max(F.struct("known", "last_at", "target_id")).alias("newest"),
        F.max("last_at").alias("last_at"),
        F.count("*").alias("events"),
    )
    return said.select(
        F.element_at(_literals([kind for kind, _ in FACTS]), F.col("fact") + 1).alias("kind"),
        "source_id",
        "newest.target_id",
        F.when(alone, 1).otherwise(F.col("events")).alias("events"),
        F.when(alone, F.col("newest.last_at")).otherwise(F.col("last_at")).alias("last_at"),
    )


def _literals(values: Sequence[float]) -> Column:
    return F.array(*(F.lit(value) for value in values))


def _is_capped() -> Column:
    return F.col("kind").isin([kind for kind, edge in enumerate(EDGE_TYPES) if edge.capped])


def capped(edges: DataFrame, cap: int) -> DataFrame:
    """``edges`` with ``kept``: whether an edge is among the ``cap`` heaviest of both its ends.

    Of equal weights the smaller id at the other end comes first. Edges of types without a cap are
    kept. Grain: unchanged, one row per edge.
    """

    def heaviest(end: str, other: str) -> DataFrame:
        ordered = Window.partitionBy("kind", end).orderBy(F.desc("weight"), F.asc(other))
        ranked = edges.where(_is_capped()).withColumn("rank", F.row_number().over(ordered))
        return ranked.where(F.col("rank") <= cap).drop("rank").withColumn("votes", F.lit(1))

    sure = F.when(_is_capped(), 0).otherwise(_BOTH)
    voted = (
        edges.withColumn("votes", sure)
        .unionByName(heaviest("source_id", "target_id"))
        .unionByName(heaviest("target_id", "source_id"))
    )
    values = [F.max(name).alias(name) for name in WEIGHTED.names if name not in _EDGE]
    return voted.groupBy(*_EDGE).agg(*values, (F.sum("votes") == _BOTH).alias("kept"))


def statistics(edges: DataFrame) -> GraphStatistics:
    """Nodes, edges and degrees of the result of :func:`capped`.

    Only histograms reach the driver: a graph of E edges has at most some 2 * sqrt(E) different
    degrees.
    """
    found: dict[int, list[Row]] = {}
    for row in _degrees(edges).collect():
        found.setdefault(row.scope, []).append(row)
    scopes = range(_end_scope(len(EDGE_TYPES), 0))
    degrees = [Degrees.of({row.degree: row.nodes for row in found.get(of, ())}) for of in scopes]
    of_edges = {}
    for kind, edge in enumerate(EDGE_TYPES):
        source, target = (_end_scope(kind, end) for end in (0, 1))
        rows = found.get(source, ())
        kept = sum(row.degree * row.nodes for row in rows)
        dropped, events = sum(row.edges for row in rows) - kept, sum(row.events for row in rows)
        ends = degrees[source], degrees[target]
        of_edges[edge.name] = EdgeStatistics(kept, dropped, events, *ends)
    return GraphStatistics(dict(zip(NODE_TYPES, degrees, strict=False)), of_edges)


def _end_scope(kind: int, end: int) -> int:
    """The number of one end of a type of edge; those below are of the types of nodes."""
    return len(NODE_TYPES) + 2 * kind + end


def _degrees(edges: DataFrame) -> DataFrame:
    """How many nodes have a degree: ``scope``, a type of node or an end of a type of edge,
    ``degree`` in kept edges, ``nodes``, all their ``edges``, and the ``events`` of kept ones."""
    types = list(NODE_TYPES)
    ends = []
    for end, column in enumerate(("source_id", "target_id")):
        sides = [edge.target if end else edge.source for edge in EDGE_TYPES]
        of_node = F.element_at(_literals([types.index(side) for side in sides]), F.col("kind") + 1)
        of_edge = F.col("kind") * 2 + _end_scope(0, end)
        ends += [F.struct(scope.cast("int").alias("scope"), F.col(column).alias("node"))
                 for scope in (of_node, of_edge)]  # fmt: skip
    kept = F.col("kept").cast("int").alias("kept")
    events = F.when(F.col("kept"), F.col("events")).otherwise(0).alias("events")
    nodes = edges.select(kept, events, F.explode(F.array(*ends)).alias("end"))
    by_node = nodes.groupBy("end.scope", "end.node").agg(
        F.sum("kept").alias("degree"), F.count("*").alias("edges"), F.sum("events").alias("events")
    )
    return by_node.groupBy("scope", "degree").agg(
        F.count("*").alias("nodes"), F.sum("edges").alias("edges"), F.sum("events").alias("events")
    )
