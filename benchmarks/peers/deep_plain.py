"""The plain PyTorch loop of benchmarks/deep.py: the same layers, every row encoded in memory.

python benchmarks/peers/deep_plain.py TASK      # run by deep.py
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

import torch
from deep_arrays import Arrays, Fit, arrays_of, first, peak_mb, report, task_of
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

SCORED = 8192


def mlp(inputs: int, layers: Sequence[int], out: int = 0) -> nn.Sequential:
    parts: list[nn.Module] = []
    for units in layers:
        parts += [nn.Linear(inputs, units), nn.ReLU()]
        inputs = units
    return nn.Sequential(*parts, *([nn.Linear(inputs, out)] if out else []))


class Embeddings(nn.Module):
    """One table a column; (B, D) and (B, S) to (B, D + S d)."""

    def __init__(self, task: dict[str, Any]) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(n, task["embedding"]) for _, n in task["sparse"])
        for table in self.tables:
            nn.init.normal_(table.weight, std=0.05)
        self.width = len(task["dense"]) + len(task["sparse"]) * task["embedding"]

    def forward(self, dense: Tensor, sparse: Tensor) -> Tensor:
        found = [table(sparse[:, place]) for place, table in enumerate(self.tables)]
        return torch.cat([dense, *found], 1)


class MMOE(nn.Module):
    def __init__(self, task: dict[str, Any]) -> None:
        super().__init__()
        self.embeddings = Embeddings(task)
        width, tasks = self.embeddings.width, range(len(task["labels"]))
        layers, units, towers = task["expert_layers"], task["gate_units"], task["tower_layers"]
        self.experts = nn.ModuleList(mlp(width, layers) for _ in range(task["experts"]))
        self.gates = nn.ModuleList(mlp(width, [units], task["experts"]) for _ in tasks)
        self.towers = nn.ModuleList(mlp(layers[-1], towers, 1) for _ in tasks)

    def forward(self, dense: Tensor, sparse: Tensor, sequences: Tensor) -> Tensor:
        del sequences
        row = self.embeddings(dense, sparse)
        experts = torch.stack([expert(row) for expert in self.experts], 1)  # (B, E, H)
        outputs = []
        for gate, tower in zip(self.gates, self.towers, strict=True):
            weights = torch.softmax(gate(row), 1)  # (B, E)
            outputs.append(tower((weights[:, :, None] * experts).sum(1)))
        return torch.cat(outputs, 1)


class Attention(nn.Module):
    """Elements (B, L, d) weighed by an MLP of [element, target, element * target]."""

    def __init__(self, width: int, units: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(3 * width, units)
        self.out = nn.Linear(units, 1, bias=False)

    def forward(self, elements: Tensor, target: Tensor, filled: Tensor) -> Tensor:
        wide = target[:, None].expand_as(elements)
        hidden = F.relu(self.hidden(torch.cat([elements, wide, elements * wide], 2)))
        logits = self.out(hidden).squeeze(2).masked_fill(~filled, -1e9)
        weights = torch.softmax(logits, 1) * filled
        return (weights[:, :, None] * elements).sum(1)


class TargetAttention(nn.Module):
    def __init__(self, task: dict[str, Any]) -> None:
        super().__init__()
        self.embeddings = Embeddings(task)
        self.place = [name for name, _ in task["sparse"]].index(task["item"])
        self.attention = Attention(task["embedding"], task["attention_units"])
        width = self.embeddings.width + 2 * task["embedding"]
        self.deep = mlp(width, task["layers"], len(task["labels"]))

    def forward(self, dense: Tensor, sparse: Tensor, sequences: Tensor) -> Tensor:
        table = self.embeddings.tables[self.place]
        target = table(sparse[:, self.place])
        pooled = self.attention(table(sequences), target, sequences != 0)
        row = self.embeddings(dense, sparse)
        return self.deep(torch.cat([row, pooled, pooled * target], 1))


class Transformer(nn.Module):
    def __init__(self, task: dict[str, Any]) -> None:
        super().__init__()
        self.embeddings = Embeddings(task)
        self.place = [name for name, _ in task["sparse"]].index(task["item"])
        width = task["embedding"]
        self.places = nn.Parameter(torch.empty(task["length"], width).normal_(std=0.02))
        self.summary = nn.Parameter(torch.empty(width).normal_(std=0.02))
        layer = nn.TransformerEncoderLayer(
            width, task["heads"], task["hidden"], dropout=0.0, activation="gelu",
            batch_first=True, norm_first=True,
        )  # fmt: skip
        self.encoder = nn.TransformerEncoder(
            layer, task["blocks"], nn.LayerNorm(width), enable_nested_tensor=False
        )
        self.attention = Attention(width, task["attention_units"])
        self.deep = mlp(self.embeddings.width + 2 * width, task["layers"], len(task["labels"]))

    def forward(self, dense: Tensor, sparse: Tensor, sequences: Tensor) -> Tensor:
        table = self.embeddings.tables[self.place]
        target = table(sparse[:, self.place])
        summary = self.summary.expand(len(dense), 1, -1)
        tokens = torch.cat([summary, table(sequences) + self.places], 1)  # (B, 1 + L, d)
        filled = F.pad(sequences != 0, (1, 0), value=True)
        tokens = self.encoder(tokens, src_key_padding_mask=~filled)
        pooled = self.attention(tokens, target, filled)
        row = self.embeddings(dense, sparse)
        return self.deep(torch.cat([row, tokens[:, 0], pooled], 1))


NETWORKS = {"mmoe": MMOE, "attention": TargetAttention, "transformer": Transformer}


def trained(task: dict[str, Any], arrays: Arrays, epochs: int) -> tuple[nn.Module, float]:
    """The network, and the seconds of its epochs."""
    dense, sparse, sequences, labels = tensors(arrays)
    network = NETWORKS[task["network"]](task)
    optimizer = torch.optim.Adam(network.parameters(), lr=task["learning_rate"], fused=True)
    began = time.perf_counter()
    for _ in range(epochs):
        for places in torch.randperm(len(dense)).split(task["batch"]):
            optimizer.zero_grad(set_to_none=True)
            logits = network(dense[places], sparse[places], sequences[places])
            each = F.binary_cross_entropy_with_logits(logits, labels[places], reduction="none")
            each.mean(0).sum().backward()
            optimizer.step()
    return network, time.perf_counter() - began


def fit(task: dict[str, Any]) -> Fit:
    arrays = arrays_of(task, "train")
    began = time.perf_counter()
    trained(task, first(arrays, task["batch"]), 1)
    startup = time.perf_counter() - began
    network, seconds = trained(task, arrays, task["epochs"])
    peak = peak_mb()
    network.eval()
    with torch.inference_mode():
        parts = zip(*(t.split(SCORED) for t in tensors(arrays_of(task, "test"))[:3]), strict=True)
        scores = torch.cat([network(*part) for part in parts]).numpy()
    return Fit(seconds, scores, torch.__version__, peak, startup)


def tensors(arrays: Arrays) -> tuple[Tensor, ...]:
    return tuple(torch.from_numpy(array) for array in arrays)


if __name__ == "__main__":
    given = task_of(sys.argv[1])
    report(fit(given), given)
