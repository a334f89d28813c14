"""gensim's Word2Vec over walks of a compiled walker, of benchmarks/graph.py.

python benchmarks/peers/graph_gensim.py TASK      # run by graph.py
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import gensim
import numba
import numpy as np
from gensim.models import Word2Vec
from graph_shared import Watch, edges_of, task_of


@numba.njit(parallel=True)
def walks_from(starts, user_row, user_near, item_row, item_near, length, seed):
    """Walks user, item, user, ...; items are numbered after the users."""
    users = len(user_row) - 1
    found = np.empty((len(starts), length), dtype=np.int32)
    for number in numba.prange(len(starts)):
        np.random.seed(seed + number)
        node = starts[number]
        found[number, 0] = node
        for place in range(1, length):
            if node < users:
                low, high = user_row[node], user_row[node + 1]
                node = users + user_near[np.random.randint(low, high)]
            else:
                low, high = item_row[node - users], item_row[node - users + 1]
                node = item_near[np.random.randint(low, high)]
            found[number, place] = node
    return found


def adjacency(left, right, size):
    order = np.argsort(left, kind="stable")
    return np.searchsorted(left[order], np.arange(size + 1)), right[order]


def main() -> None:
    task = task_of(sys.argv[1])
    user, item = edges_of(task)
    users, items = int(user.max()) + 1, int(item.max()) + 1
    small = adjacency(np.arange(2), np.arange(2), 2)
    walks_from(np.arange(2), *small, *small, 2, 0)  # compiled before the clock runs
    watch = Watch(task)
    tables = (*adjacency(user, item, users), *adjacency(item, user, items))
    model = Word2Vec(
        vector_size=task["dimensions"], window=task["window"], negative=task["negatives"], sg=1,
        hs=0, min_count=1, sample=0, workers=task["cores"], seed=task["seed"],
        alpha=task["rate"], min_alpha=task["final_rate"],
    )  # fmt: skip
    names = [str(node) for node in range(users + items)]
    degrees = np.concatenate([np.bincount(user), np.bincount(item)])
    # Noise in proportion to visits, as counted walks would have it.
    model.build_vocab_from_freq({n: int(d) for n, d in zip(names, degrees, strict=True) if d})
    random = np.random.default_rng(task["seed"])
    # Its fast way: text in a file in memory, which its compiled threads read on their own.
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        path = Path(folder) / "walks.txt"
        for number in range(task["passes"]):
            walks = walks_from(
                random.permutation(users), *tables, task["length"], task["seed"] + number * users
            )
            write(path, walks)
            share = np.array([number, number + 1]) / task["passes"]
            rates = task["rate"] - (task["rate"] - task["final_rate"]) * share
            model.train(
                corpus_file=str(path), total_words=walks.size, total_examples=len(walks), epochs=1,
                start_alpha=rates[0], end_alpha=rates[1],
            )  # fmt: skip
            watch.tokens += walks.size
            there = [model.wv.key_to_index.get(names[node], 0) for node in range(users)]
            if watch.look(model.wv.vectors[there]):
                break
    watch.report(gensim.__version__)


def write(path: Path, walks: np.ndarray) -> None:
    """One walk a line; NumPy's own text takes many times as long."""
    with path.open("w") as stream:
        for start in range(0, len(walks), 4096):
            rows = walks[start : start + 4096].tolist()
            stream.write("\n".join(" ".join(map(str, row)) for row in rows) + "\n")


if __name__ == "__main__":
    main()
