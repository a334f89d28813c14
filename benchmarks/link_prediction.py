"""Links told from vectors alone: ROC-AUC on the product graph of GATNE's Amazon.

    python benchmarks/link_prediction.py --data ../shared/data/gatne_amazon

The folder has train.txt.gz, valid.txt.gz and test.txt.gz: relation, node, node, and in the last two
whether they are linked. As for the baselines of its paper (Cen et al., GATNE, KDD 2019, table 4), a
graph is embedded for every relation alone, a pair scores the cosine of its vectors, and the areas
are averaged over the relations; products have one type, so that walks are product-product.
"""

from __future__ import annotations

import argparse
import datetime as dt
import gzip
import json
import os
import sys
import time
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from models.graph.alignment import unit
from models.metapath2vec import Metapath2Vec
from models.metrics import auc

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "link_prediction.jsonl"
PUBLISHED: Final = 0.9415  # metapath2vec in that table
CONFIG: Final[dict[str, Any]] = {
    "metapaths": ["product-product"],
    "skip_gram": {"dimensions": 200, "walk_length": 10, "walks_per_node": 20, "window": 5},
}


def pairs(path: Path) -> dict[str, np.ndarray]:
    """By relation its lines as texts."""
    lines = [line.split() for line in gzip.decompress(path.read_bytes()).decode().splitlines()]
    found: dict[str, list[list[str]]] = {}
    for relation, *rest in lines:
        found.setdefault(relation, []).append(rest)
    return {relation: np.array(rows) for relation, rows in sorted(found.items())}


def edges(rows: np.ndarray) -> pa.Table:
    kinds = pa.array(["product"] * len(rows))
    return pa.table({"source_type": kinds, "source_id": rows[:, 0], "target_type": kinds,
                     "target_id": rows[:, 1], "weight": np.ones(len(rows))})  # fmt: skip


def scored(model: Metapath2Vec, rows: np.ndarray) -> np.ndarray:
    """The cosine of each pair; 0 where a node has no vector."""
    found = []
    vectors = np.vstack([unit(model.vectors), np.zeros((1, model.vectors.shape[1]), np.float32)])
    for end in (0, 1):
        nodes = pa.table({"node_type": ["product"] * len(rows), "node_id": rows[:, end]})
        found.append(vectors[model.places(nodes)])  # place -1 is the zeros
    return (found[0] * found[1]).sum(1)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    default = ROOT.parent / "shared" / "data" / "gatne_amazon"
    parser.add_argument("--data", type=Path, default=default, help="[%(default)s]")
    parser.add_argument("--seeds", type=int, default=3, help="[%(default)s]")
    given = parser.parse_args()
    train, test = (pairs(given.data / f"{part}.txt.gz") for part in ("train", "test"))
    areas, seconds = [], []
    for seed in range(given.seeds):
        config = {**CONFIG, "skip_gram": {**CONFIG["skip_gram"], "seed": seed}}
        began, found = time.monotonic(), []
        for relation, rows in train.items():
            model = Metapath2Vec.build(config)
            model.fit_edges(edges(rows), "2000-01-01")
            asked = test[relation]
            found.append(auc(asked[:, 2].astype(float), scored(model, asked).astype(float)))
        areas.append(float(np.mean(found)))
        seconds.append(time.monotonic() - began)
        print(f"# seed {seed}: {found}, {seconds[-1]:.1f} s", file=sys.stderr, flush=True)
    ours = float(np.mean(areas))
    line = json.dumps({
        "bench": "link_prediction", "case": "gatne_amazon ROC-AUC", "ours": round(ours, 5),
        "peer": "metapath2vec, published", "peer_version": "GATNE, table 4", "theirs": PUBLISHED,
        "unit": "auc", "ratio": round(ours / PUBLISHED, 4), "ours_peak_mb": None,
        "theirs_peak_mb": None,
        "quality": {"by_seed": [round(area, 5) for area in areas], "config": CONFIG,
                    "seconds": [round(value, 1) for value in seconds]},
        "repetitions": given.seeds, "cores": os.cpu_count(),
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
    })  # fmt: skip
    print(line)
    if given.seeds == 3:
        RESULTS.write_text(f"{line}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
