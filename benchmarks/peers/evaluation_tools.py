"""NDCG@10 of many requests by the tools that people use for it, one a process.

    python evaluation_tools.py TOOL FOLDER

FOLDER has labels.npy and scores.npy (requests, items). Prints the seconds of the computation and,
apart, those of building what the tool reads; leaves TOOL.npy where it gives a value a request.
Runs in the peers' environment, without the project.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

K = 10
Array = Any
Made = tuple[Callable[[], Any], Callable[[Any], Array | float]]
"""What is timed, and the values by request (or their mean) of what it returns."""

SQL = """
WITH ranked AS (
  SELECT request, label,
    row_number() OVER (PARTITION BY request ORDER BY score DESC) AS rank,
    row_number() OVER (PARTITION BY request ORDER BY label DESC) AS best
  FROM rows
)
SELECT request,
  sum(CASE WHEN rank <= 10 THEN label / log2(1 + rank) END)
  / sum(CASE WHEN best <= 10 THEN label / log2(1 + best) END) AS ndcg
FROM ranked GROUP BY request ORDER BY request
"""


def plain_numpy(labels: Array, scores: Array) -> Made:
    def run() -> Array:
        discounts = 1 / np.log2(np.arange(2, K + 2))
        order = np.argsort(-scores, axis=1)[:, :K]
        gained = np.take_along_axis(labels, order, axis=1) @ discounts[: order.shape[1]]
        best = -np.sort(-labels, axis=1)[:, :K] @ discounts[: order.shape[1]]
        return gained / best

    return run, lambda values: values


def sklearn(labels: Array, scores: Array, ignore_ties: bool) -> Made:
    from sklearn.metrics import ndcg_score

    return lambda: ndcg_score(labels, scores, k=K, ignore_ties=ignore_ties), float


def ranx(labels: Array, scores: Array) -> Made:
    """Arrays of (item, value) in order, the fastest form that ranx reads."""
    from ranx import evaluate

    def sorted_pairs(values: Array) -> Array:
        order = np.argsort(-values, axis=1)
        return np.stack([order + 1.0, np.take_along_axis(values, order, axis=1)], axis=2)

    true, run = sorted_pairs(labels), sorted_pairs(scores)
    # One metric alone by request is a KeyError.
    metrics = ["ndcg@10", "map@10", "mrr@10", "recall@10", "precision@10"]
    return (
        lambda: evaluate(true, run, "ndcg@10"),
        lambda _: np.stack(list(evaluate(true, run, metrics, return_mean=False).values()), axis=1),
    )


def pytrec_eval(labels: Array, scores: Array) -> Made:
    from pytrec_eval import RelevanceEvaluator

    items = [str(item) for item in range(labels.shape[1])]

    def by_request(values: Array) -> dict[str, dict[str, Any]]:
        return {
            str(request): dict(zip(items, row, strict=True))
            for request, row in enumerate(values.tolist())
        }

    run = by_request(scores)
    evaluator = RelevanceEvaluator(by_request(labels.astype(int)), {"ndcg_cut.10"})
    return (
        lambda: evaluator.evaluate(run),
        lambda found: np.array([found[str(r)]["ndcg_cut_10"] for r in range(len(labels))]),
    )


def columns(labels: Array, scores: Array) -> dict[str, Array]:
    requests = np.repeat(np.arange(len(labels)), labels.shape[1])
    return {"request": requests, "label": labels.ravel(), "score": scores.ravel()}


def duckdb(labels: Array, scores: Array) -> Made:
    import duckdb as engine
    import pyarrow as pa

    connection = engine.connect()
    connection.register("given", pa.table(columns(labels, scores)))
    connection.execute("CREATE TABLE rows AS SELECT * FROM given")
    return (
        lambda: connection.sql(SQL).to_arrow_table(),
        lambda found: found["ndcg"].to_numpy(),
    )


def polars(labels: Array, scores: Array) -> Made:
    import polars as pl

    frame = pl.DataFrame(columns(labels, scores))

    def gained(by: str) -> Any:
        rank = pl.col(by).rank("ordinal", descending=True).over("request")
        return pl.when(rank <= K).then(pl.col("label") / (1 + rank).log(2)).otherwise(0.0)

    def run() -> Any:
        wide = frame.lazy().select("request", gained=gained("score"), best=gained("label"))
        summed = wide.group_by("request").agg(pl.col("gained", "best").sum())
        ndcg = (pl.col("gained") / pl.col("best")).alias("ndcg")
        return summed.select("request", ndcg).sort("request").collect()

    return run, lambda found: found["ndcg"].to_numpy()


TOOLS: dict[str, tuple[str, Callable[[Array, Array], Made]]] = {
    "NumPy": ("numpy", plain_numpy),
    "scikit-learn, ties ignored": ("scikit-learn", lambda y, s: sklearn(y, s, True)),
    "scikit-learn": ("scikit-learn", lambda y, s: sklearn(y, s, False)),
    "ranx": ("ranx", ranx),
    "pytrec_eval": ("pytrec-eval-terrier", pytrec_eval),
    "DuckDB": ("duckdb", duckdb),
    "Polars": ("polars", polars),
}


def main() -> None:
    tool, folder = sys.argv[1], Path(sys.argv[2])
    labels, scores = np.load(folder / "labels.npy"), np.load(folder / "scores.npy")
    package, make = TOOLS[tool]
    make(labels[:50], scores[:50])[0]()  # imports and compiles
    started = time.perf_counter()
    run, values = make(labels, scores)
    built, busy = time.perf_counter(), time.process_time()
    found = run()
    ended, spent = time.perf_counter(), time.process_time()
    np.save(folder / f"{tool}.npy", np.asarray(values(found)))
    timed = {"seconds": ended - built, "building_seconds": built - started}
    print(json.dumps({**timed, "cpu_seconds": spent - busy, "version": version(package)}))


if __name__ == "__main__":
    main()
