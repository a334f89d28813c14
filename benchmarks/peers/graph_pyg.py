"""PyTorch Geometric's MetaPath2Vec, of benchmarks/graph.py.

python benchmarks/peers/graph_pyg.py TASK      # run by graph.py
"""

from __future__ import annotations

import sys

import torch
import torch_geometric
from graph_shared import Watch, edges_of, task_of
from torch_geometric.nn import MetaPath2Vec

BATCH = 128


def main() -> None:
    task = task_of(sys.argv[1])
    torch.manual_seed(task["seed"])
    torch.set_num_threads(task["cores"])
    user, item = (torch.from_numpy(ends).long() for ends in edges_of(task))
    watch = Watch(task)
    there, back = ("user", "to", "item"), ("item", "of", "user")
    model = MetaPath2Vec(
        {there: torch.stack([user, item]), back: torch.stack([item, user])},
        embedding_dim=task["dimensions"], metapath=[there, back], walk_length=task["length"] - 1,
        context_size=task["window"] + 1, walks_per_node=1,
        num_negative_samples=task["negatives"], sparse=True,
    )  # fmt: skip
    loader = model.loader(batch_size=BATCH, shuffle=True, num_workers=0)
    optimizer = torch.optim.SparseAdam(list(model.parameters()), lr=0.01)
    users = int(user.max()) + 1
    for _ in range(task["passes"]):
        full = False
        for positive, negative in loader:
            optimizer.zero_grad()
            model.loss(positive, negative).backward()
            optimizer.step()
            windows = task["length"] - task["window"]  # of a walk; every one is a row
            watch.tokens += len(positive) // windows * task["length"]
            full = full or watch.seconds > task["limit_s"]
            if full:
                break
        with torch.no_grad():
            if watch.look(model("user", torch.arange(users)).numpy()) or full:
                break
    watch.report(torch_geometric.__version__)


if __name__ == "__main__":
    main()
