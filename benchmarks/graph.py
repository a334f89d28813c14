"""Embedding a graph beside gensim's Word2Vec and PyTorch Geometric's MetaPath2Vec, walks included.

Users and items of classes; an edge stays inside its class six times in ten. Every candidate is a
process of its own and makes the same number of walks user-item-user of the same length, window,
vectors and noise a pair; after every pass over the users the clock stops while the classes of half
of the users are told by the means of the others (Macro-F1).

- tokens: nodes walked a second, over the passes made.
- reached: seconds until Macro-F1 is 99 % of the lowest that the candidates ended with, of those
  that made all passes; None where it was never reached.

gensim reads its walks from a file in memory, its fastest way, made by a compiled walker that is
part of the benchmark; PyTorch Geometric runs without torch-cluster and ends at the limit.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from measuring import peers_python, watched

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "graph.jsonl"
EXAMPLES = """examples:
  make bench-graph                                            everything, kept in results/
  python benchmarks/graph.py --edges 100000 --repetitions 1   one size, kept nowhere
"""
OURS, GENSIM, PYG = "ours", "gensim", "pyg"
SCRIPTS = {GENSIM: "graph_gensim.py", PYG: "graph_pyg.py"}
SIZES = (100_000, 300_000, 1_000_000)
DEGREE, CLASSES, INSIDE = 8, 20, 0.6
TASK = {
    "dimensions": 128, "length": 40, "window": 5, "negatives": 5, "passes": 10, "rate": 0.025,
    "final_rate": 0.0001, "typed": False,
}  # fmt: skip


def planted(folder: Path, edges: int) -> None:
    """Users and as many items; every user has the same number of edges, few of them twice."""
    folder.mkdir()
    users = edges // DEGREE
    rng = np.random.default_rng(edges)
    of_user, of_item = (rng.integers(0, CLASSES, users) for _ in range(2))
    order = np.argsort(of_item, kind="stable")
    starts = np.searchsorted(of_item[order], np.arange(CLASSES + 1))
    user = np.repeat(np.arange(users), DEGREE)
    low, high = starts[of_user[user]], starts[of_user[user] + 1]
    near = order[low + (rng.random(edges) * (high - low)).astype(np.int64)]
    item = np.where(rng.random(edges) < INSIDE, near, rng.integers(0, users, edges))
    _, item = np.unique(item, return_inverse=True)  # items without an edge are not there
    np.save(folder / "edges.npy", np.stack([user, item]))
    np.save(folder / "classes.npy", of_user)


def fitted(candidate: str, folder: Path, task: dict[str, Any]) -> dict[str, Any]:
    """What one fit reports."""
    path = folder / "task.json"
    path.write_text(json.dumps({**task, "folder": str(folder)}))
    python = sys.executable if candidate == OURS else peers_python()
    script = HERE / "graph_fit.py" if candidate == OURS else HERE / "peers" / SCRIPTS[candidate]
    paths = os.pathsep.join([str(HERE / "peers"), str(HERE)])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_WAIT_POLICY": "PASSIVE"}
    found: dict[str, Any] = json.loads(
        watched([python, str(script), str(path)], environment).last_line
    )
    return found


def measured(edges: int, folder: Path, arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The lines of one size: ours beside every peer."""
    names = [OURS, *arguments.peers]
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for repetition in range(arguments.repetitions):
        turn = repetition % len(names)
        for name in names[turn:] + names[:turn]:
            task = {**TASK, "cores": arguments.cores, "seed": repetition + 1,
                    "limit_s": arguments.limit}  # fmt: skip
            runs[name].append(fitted(name, folder, task))
            seconds, tokens, quality = runs[name][-1]["passes"][-1]
            said = f"{tokens / seconds:,.0f} tokens/s, {seconds:.1f} s, Macro-F1 {quality:.4f}"
            print(f"# {edges:,} edges, {name}: {said}", file=sys.stderr, flush=True)
    whole = [name for name in names if len(runs[name][0]["passes"]) == TASK["passes"]]
    ended = [median_of(runs[name], final) for name in whole]
    wanted = 0.99 * min(ended)
    for name in names[1:]:
        yield line(edges, wanted, runs[OURS], name, runs[name], arguments.cores)


def median_of(runs: list[dict[str, Any]], number: Any) -> float:
    return statistics.median(number(run) for run in runs)


def speed(run: dict[str, Any]) -> float:
    seconds, tokens, _ = run["passes"][-1]
    return float(tokens / seconds)


def final(run: dict[str, Any]) -> float:
    return float(run["passes"][-1][2])


def line(
    edges: int, wanted: float, ours: list[dict[str, Any]], peer: str, theirs: list[dict[str, Any]],
    cores: int,
) -> dict[str, Any]:  # fmt: skip
    def reached(runs: list[dict[str, Any]]) -> float | None:
        found = [next((p[0] for p in run["passes"] if p[2] >= wanted), None) for run in runs]
        there = [seconds for seconds in found if seconds is not None]
        return round(statistics.median(there), 2) if len(there) == len(runs) else None

    mine, other = median_of(ours, speed), median_of(theirs, speed)
    return {
        "bench": "graph", "case": f"{edges:,} edges", "ours": round(mine), "peer": peer,
        "peer_version": theirs[0]["version"], "theirs": round(other), "unit": "tokens/s",
        "ratio": round(mine / other, 2),
        "ours_peak_mb": round(max(run["peak_mb"] for run in ours)),
        "theirs_peak_mb": round(max(run["peak_mb"] for run in theirs)),
        "quality": {
            "macro_f1": [round(median_of(runs, final), 4) for runs in (ours, theirs)],
            "passes": [len(runs[0]["passes"]) for runs in (ours, theirs)],
            "seconds": [round(median_of(runs, lambda r: r["passes"][-1][0]), 2)
                        for runs in (ours, theirs)],
            "wanted_f1": round(wanted, 4), "seconds_to_wanted": [reached(ours), reached(theirs)],
        },
        "repetitions": len(ours), "cores": cores,
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
    }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="not needed: the graphs are made here")
    parser.add_argument("--edges", type=int, nargs="+", help="sizes; kept nowhere")
    parser.add_argument("--peers", nargs="*", choices=list(SCRIPTS), default=list(SCRIPTS))
    parser.add_argument("--repetitions", type=int, default=3, help="fits per candidate (3)")
    parser.add_argument("--limit", type=float, default=60.0, help="seconds after which none begins "
                        "another pass (60)")  # fmt: skip
    parser.add_argument("--cores", type=int, default=os.cpu_count() or 1, help="threads of a fit")
    arguments = parser.parse_args()
    lines = []
    with tempfile.TemporaryDirectory(prefix="rankmill-bench-") as scratch:
        for edges in arguments.edges or SIZES:
            folder = Path(scratch) / str(edges)
            planted(folder, edges)
            for result in measured(edges, folder, arguments):
                lines.append(json.dumps(result))
                print(lines[-1], flush=True)
    if not arguments.edges and set(arguments.peers) == set(SCRIPTS):
        RESULTS.write_text("".join(f"{text}\n" for text in lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
