"""DeepCTR-Torch in benchmarks/deep.py: MMOE and DIN, fitted by its own `fit`.

    python benchmarks/peers/deep_deepctr.py TASK      # run by deep.py

The embeddings and layers are as large as ours, and like ours without a penalty: by default it adds
up the squares of all tables in every step. Its linear layers start as PyTorch's do: from their own
start, a deviation of .0001, DIN said the same of every row after two epochs of the Taobao log.
"""

from __future__ import annotations

import sys
import time
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from deep_arrays import Arrays, Fit, arrays_of, first, peak_mb, report, task_of
from deepctr_torch.inputs import DenseFeat, SparseFeat, VarLenSparseFeat
from deepctr_torch.models import DIN
from deepctr_torch.models.multitask import MMOE

SCORED = 8192


def inputs(task: dict[str, Any], arrays: Arrays) -> dict[str, np.ndarray]:
    """Columns by name; sequences from the left, with their lengths."""
    found = {name: arrays.dense[:, place] for place, name in enumerate(task["dense"])}
    found |= {name: arrays.sparse[:, place] for place, (name, _) in enumerate(task["sparse"])}
    if task["network"] != "mmoe":
        found["length"] = np.count_nonzero(arrays.sequences, axis=1)
        order = np.argsort(arrays.sequences == 0, axis=1, kind="stable")
        found[f"hist_{task['item']}"] = np.take_along_axis(arrays.sequences, order, 1)
    return found


def model_of(task: dict[str, Any]) -> Any:
    width = task["embedding"]
    columns: list[Any] = [SparseFeat(name, n, width) for name, n in task["sparse"]]
    columns += [DenseFeat(name, 1) for name in task["dense"]]
    common = {"l2_reg_embedding": 0.0, "seed": task["seed"], "device": "cpu"}
    if task["network"] == "mmoe":
        tasks = task["labels"]
        return MMOE(
            columns, task["experts"], task["expert_layers"], [task["gate_units"]],
            task["tower_layers"], l2_reg_linear=0.0, init_std=0.05,
            task_types=["binary"] * len(tasks), task_names=tasks, **common,
        )  # fmt: skip
    item, buckets = next(column for column in task["sparse"] if column[0] == task["item"])
    element = SparseFeat(f"hist_{item}", buckets, width, embedding_name=item)
    columns.append(VarLenSparseFeat(element, task["length"], length_name="length"))
    return DIN(
        columns, [item], dnn_hidden_units=task["layers"], att_activation="relu",
        att_hidden_size=[task["attention_units"]], att_weight_normalization=True, init_std=0.05,
        **common,
    )  # fmt: skip


def trained(task: dict[str, Any], arrays: Arrays, epochs: int) -> tuple[Any, float]:
    """The model, and the seconds of its epochs."""
    given = inputs(task, arrays)
    model = model_of(task)
    for module in model.modules():
        if isinstance(module, torch.nn.Linear):
            module.reset_parameters()
    losses = ["binary_crossentropy"] * len(task["labels"])
    rate = task["learning_rate"]
    model.compile(
        torch.optim.Adam(model.parameters(), lr=rate), losses if len(losses) > 1 else losses[0]
    )
    began = time.perf_counter()
    model.fit(given, arrays.labels, batch_size=task["batch"], epochs=epochs, verbose=0)
    return model, time.perf_counter() - began


def fit(task: dict[str, Any]) -> Fit:
    arrays = arrays_of(task, "train")
    began = time.perf_counter()
    trained(task, first(arrays, task["batch"]), 1)
    startup = time.perf_counter() - began
    model, seconds = trained(task, arrays, task["epochs"])
    peak = peak_mb()
    scores = model.predict(inputs(task, arrays_of(task, "test")), SCORED)
    return Fit(seconds, scores, version("deepctr-torch"), peak, startup)


if __name__ == "__main__":
    chosen = task_of(sys.argv[1])
    report(fit(chosen), chosen)
