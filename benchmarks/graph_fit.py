"""Ours of benchmarks/graph.py.

python benchmarks/graph_fit.py TASK      # run by graph.py
"""

from __future__ import annotations

import importlib.metadata
import sys

import numpy as np
import pyarrow as pa
from graph_shared import Watch, edges_of, task_of

from models.graph.heterograph import HeteroGraph
from models.graph.metapaths import Metapath
from models.graph.skipgram import SkipGramConfig, embed

PATHS = [Metapath.parse("user-item-user")]


def main() -> None:
    task = task_of(sys.argv[1])
    config = SkipGramConfig(
        dimensions=task["dimensions"], walks_per_node=task["passes"], walk_length=task["length"],
        window=task["window"], negatives=task["negatives"], learning_rate=task["rate"],
        final_rate=task["final_rate"], typed_negatives=task["typed"], seed=task["seed"],
    )  # fmt: skip
    few = table(np.array([0, 1]), np.array([0, 1]))
    embed(HeteroGraph(few), PATHS, config)  # compiled before the clock runs
    user, item = edges_of(task)
    watch = Watch(task)
    graph = HeteroGraph(table(user, item))
    users = graph.nodes("user")
    place = np.argsort(np.array(graph.ids["user"].to_pylist(), dtype=np.int64))
    whole = len(users)

    def look(done: int, vectors: np.ndarray) -> None:
        watch.tokens = done * task["length"]
        if done % whole == 0:
            watch.look(vectors[users.start : users.stop][place])

    embed(graph, PATHS, config, watch=look)
    watch.report(importlib.metadata.version("rankmill"))


def table(user: np.ndarray, item: np.ndarray) -> pa.Table:
    return pa.table({
        "source_type": pa.array(["user"] * len(user)), "source_id": pa.array(user).cast("string"),
        "target_type": pa.array(["item"] * len(user)), "target_id": pa.array(item).cast("string"),
        "weight": np.ones(len(user)),
    })  # fmt: skip


if __name__ == "__main__":
    main()
