"""Ours of benchmarks/deep.py: one fit, as a job makes it, from Arrow record batches.

python benchmarks/deep_fit.py TASK      # run by deep.py
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from deep_arrays import Fit, peak_mb, report, task_of

from models.deep import DeepRanker
from models.dual_attention import DualAttention
from models.features import FeatureSpec
from models.live_transformer import LiveTransformer
from models.mmoe import MMOE

ROWS_A_BATCH = 8192


def model_of(task: dict[str, Any], spec: FeatureSpec) -> DeepRanker:
    training = {
        "epochs": task["epochs"], "batch_size": task["batch"], "seed": task["seed"],
        "learning_rate": task["learning_rate"], "device": "cpu",
    }  # fmt: skip
    tasks = [label.removeprefix("label_") for label in spec.labels]
    config = {"tasks": tasks, "embedding": task["embedding"], "training": training}
    config["min_positives"] = 1
    if task["network"] == "mmoe":
        names = ("experts", "expert_layers", "gate_units", "tower_layers")
        return MMOE.build({**config, **{name: task[name] for name in names}}, spec)
    item = spec.sequences[0].embedding
    config["layers"] = task["layers"]
    if task["network"] == "attention":
        config["interests"] = [{"sequence": ["clicked"], "target": [item]}]
        config["attention_units"] = task["attention_units"]
        return DualAttention.build(config, spec)
    config |= {name: task[name] for name in ("heads", "blocks", "hidden")}
    config |= {"tokens": (("clicked",),), "target": (item,)}
    return LiveTransformer.build(config, spec)


def fit(task: dict[str, Any], folder: Path) -> Fit:
    spec = FeatureSpec.from_json((folder / "spec.json").read_text())

    def rows(most: int | None = None) -> Iterator[pa.RecordBatch]:
        with pq.ParquetFile(folder / "train.parquet") as file:
            yield from islice(file.iter_batches(ROWS_A_BATCH), most)

    began = time.perf_counter()
    model_of({**task, "epochs": 1}, spec).fit_batches(lambda: rows(1), none)
    startup = time.perf_counter() - began
    model = model_of(task, spec)
    done = model.fit_batches(rows, none)
    peak = peak_mb()
    scores = model.predict(pq.read_table(folder / "test.parquet"))
    columns = np.stack([scores[name] for name in model.tasks], 1)
    steps = done.seconds_by_step
    return Fit(steps["train"], columns, "", peak, startup, steps["read"])


def none(batch: pa.RecordBatch) -> np.ndarray:
    """No row is kept to stop early by: every candidate fits all of them, for as many epochs."""
    return np.zeros(batch.num_rows, bool)


if __name__ == "__main__":
    given = task_of(sys.argv[1])
    report(fit(given, Path(given["folder"])), given)
