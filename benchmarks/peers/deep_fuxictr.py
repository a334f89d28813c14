"""FuxiCTR in benchmarks/deep.py: DIN and TransAct of its model zoo, fitted by its own `fit` from
the zoo's loader, which looks up the sequence of a row's user and cuts it where the row was.

    python benchmarks/peers/deep_fuxictr.py TASK      # run by deep.py
"""

from __future__ import annotations

import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from deep_arrays import Fit, arrays_of, peak_mb, report, task_of
from fuxictr.features import FeatureMap
from model_zoo.LongCTR.DIN import DIN
from model_zoo.LongCTR.longctr_dataloader import LongCTRDataLoader
from model_zoo.LongCTR.TransAct import TransAct

NOT_READ = ("user_index", "item_index", "seq_len")
STEPS = 64


def feature_map(task: dict[str, Any]) -> FeatureMap:
    found = FeatureMap("log", task["folder"])
    found.labels = list(task["labels"])
    found.default_emb_dim = task["embedding"]
    for name in NOT_READ:
        found.features[name] = {"type": "meta", "source": ""}
    for name, buckets in [*((name, STEPS) for name in task["dense"]), *task["sparse"]]:
        source = "item" if name == task["item"] else ""
        found.features[name] = {
            "type": "categorical", "source": source, "vocab_size": buckets, "padding_idx": 0
        }  # fmt: skip
    found.num_fields = found.get_num_fields()
    found.set_column_index()
    return found


def write(task: dict[str, Any], part: str) -> None:
    """The loader's files of one part, and for the start of its first rows."""
    folder = Path(task["folder"])
    arrays = arrays_of(task, part)
    steps = ((arrays.dense + 8.0) / 16.0 * (STEPS - 1)).astype(np.int32)
    columns = {name: steps[:, place] for place, name in enumerate(task["dense"])}
    for place, (name, buckets) in enumerate(task["sparse"]):
        key = "item_index" if name == task["item"] else name
        columns[key] = arrays.sparse[:, place]
        if name == task["item"]:
            every = np.arange(buckets)
            items = pd.DataFrame({"item_index": every, name: every})
            items.to_parquet(folder / "item_info.parquet")
    columns |= {"user_index": np.load(folder / f"{part}_user.npy"),
                "seq_len": np.load(folder / f"{part}_before.npy")}  # fmt: skip
    labels = arrays.labels.astype(np.int32)
    columns |= {name: labels[:, place] for place, name in enumerate(task["labels"])}
    rows = pd.DataFrame(columns)
    rows.to_parquet(folder / f"fuxictr_{part}.parquet")
    rows[: task["batch"]].to_parquet(folder / "fuxictr_first.parquet")
    clicks, starts = np.load(folder / "clicks.npy"), np.load(folder / "clicks_starts.npy")
    sequences = np.split(clicks, starts[1:-1])
    pd.DataFrame({"full_item_seq": sequences}).to_parquet(folder / "user_info.parquet")


def model_of(task: dict[str, Any], features: FeatureMap) -> Any:
    common = {
        "gpu": -1, "verbose": 0, "model_root": task["folder"], "metrics": ["AUC"],
        "optimizer": "adam", "loss": "binary_crossentropy", "eval_steps": sys.maxsize,
        "learning_rate": task["learning_rate"], "embedding_dim": task["embedding"],
    }  # fmt: skip
    if task["network"] == "attention":
        return DIN(
            features, dnn_hidden_units=task["layers"], din_use_softmax=True,
            attention_hidden_units=[task["attention_units"]], attention_hidden_activations="ReLU",
            **common,
        )  # fmt: skip
    return TransAct(
        features, dcn_hidden_units=task["layers"], num_heads=task["heads"],
        transformer_layers=task["blocks"], dim_feedforward=task["hidden"], **common,
    )  # fmt: skip


def loader(task: dict[str, Any], features: FeatureMap, part: str) -> LongCTRDataLoader:
    """In this process: workers beside the threads of the fit make it slower on few cores."""
    folder = Path(task["folder"])
    return LongCTRDataLoader(
        features, str(folder / f"fuxictr_{part}.parquet"), str(folder / "user_info.parquet"),
        str(folder / "item_info.parquet"), batch_size=task["batch"], shuffle=part != "test",
        num_workers=task.get("workers", 0), max_len=task["length"],
    )  # fmt: skip


def trained(task: dict[str, Any], part: str, epochs: int) -> tuple[Any, float]:
    """The model, and the seconds of its epochs."""
    features = feature_map(task)
    model = model_of(task, features)
    model.load_weights = lambda _: None  # of the best epoch; it is not asked to find one
    rows = loader(task, features, part)
    began = time.perf_counter()
    model.fit(rows, epochs=epochs)
    return model, time.perf_counter() - began


def fit(task: dict[str, Any]) -> Fit:
    # In another process, so that what it takes is not in this one's memory.
    subprocess.run([sys.executable, __file__, sys.argv[1], "write"], check=True)
    began = time.perf_counter()
    trained(task, "first", 1)
    startup = time.perf_counter() - began
    model, seconds = trained(task, "train", task["epochs"])
    peak = peak_mb()
    model.eval()
    with torch.inference_mode():
        parts = [model(batch)["y_pred"] for batch in loader(task, model.feature_map, "test")]
    return Fit(seconds, torch.cat(parts).numpy(), version("fuxictr"), peak, startup)


if __name__ == "__main__":
    chosen = task_of(sys.argv[1])
    if sys.argv[2:] == ["write"]:
        write(chosen, "train")
        write(chosen, "test")
    else:
        report(fit(chosen), chosen)
