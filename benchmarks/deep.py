"""Training the deep models beside DeepCTR-Torch, FuxiCTR and a plain PyTorch loop, on real logs.

Samples a second over whole epochs, reading the input included; memory; and the held-out AUC that
these epochs led to. Every fit is a process of its own and fits one batch before the clock runs;
candidates take turns, read the same columns and have the same sizes of layers and embeddings:

- ours: `models/`, from Arrow record batches. They are encoded into files first, and read from there
  in shuffled windows; `ours` counts the epochs, `quality.ours_with_encoding` both.
- plain: a PyTorch loop over the same layers, sequences padded to 50, all rows encoded in memory.
- deepctr-torch: its MMOE and DIN. It has no transformer over a sequence of its own.
- fuxictr: DIN and TransAct of the model zoo in its wheel, with that zoo's loader. TransAct is the
  nearest to ours: one layer of self-attention over the sequence beside the target, a cross network
  over all. Its wheel has no MMoE.

Cases: mmoe (Census-Income, two tasks); attention and transformer, each on kuairand (clicks of a
week, sequences of 2 on average) and on taobao (every view beside an item drawn by popularity,
sequences of categories, nearly full), each with batches of 1,024 and 4,096.
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

from measuring import ROOT, peers_python, watched

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "deep.jsonl"
EXAMPLES = """examples:
  make bench-deep DATA=../shared/data                      everything, kept in results/deep.jsonl
  python benchmarks/deep.py --data DIR --rows 4000 --repetitions 1      a trial, kept nowhere
  python benchmarks/deep.py --data DIR --case mmoe_1024 transformer_taobao_4096
"""
OURS, PLAIN, DEEPCTR, FUXICTR = "ours", "plain", "deepctr-torch", "fuxictr"
BATCHES = (1024, 4096)
NETWORKS: dict[str, dict[str, Any]] = {
    "mmoe": {
        "network": "mmoe", "data": "census_income", "peers": (PLAIN, DEEPCTR),
        "experts": 4, "expert_layers": [128, 64], "gate_units": 32, "tower_layers": [32],
    },
    **{
        f"attention_{data}": {
            "network": "attention", "data": data, "peers": (PLAIN, DEEPCTR, FUXICTR),
            "attention_units": 32, "layers": [256, 128, 64],
        }
        for data in ("kuairand", "taobao_userbehavior")
    },
    **{
        f"transformer_{data}": {
            "network": "transformer", "data": data, "peers": (PLAIN, FUXICTR),
            "attention_units": 32, "layers": [256, 128, 64],
            "heads": 2, "blocks": 1, "hidden": 64,
        }
        for data in ("kuairand", "taobao_userbehavior")
    },
}  # fmt: skip
COMMON = {"embedding": 16, "learning_rate": 1e-3, "length": 50}
CASES = {
    f"{name.removesuffix('_userbehavior')}_{batch}": {**COMMON, **network, "batch": batch}
    for name, network in NETWORKS.items()
    for batch in BATCHES
}


def environment(cores: int) -> dict[str, str]:
    """Idle threads of OpenMP sleep: spinning, they take the cores from whoever is at work."""
    return {
        **os.environ,
        "PYTHONPATH": f"{HERE / 'peers'}{os.pathsep}{HERE}",
        "OMP_NUM_THREADS": str(cores),
        "OMP_WAIT_POLICY": "PASSIVE",
    }


def script(candidate: str) -> list[str]:
    if candidate == OURS:
        return [sys.executable, str(HERE / "deep_fit.py")]
    name = {PLAIN: "plain", DEEPCTR: "deepctr", FUXICTR: "fuxictr"}[candidate]
    return [peers_python(), str(HERE / "peers" / f"deep_{name}.py")]


def measure(
    case: str, folder: Path, prepared: dict[str, Any], arguments: argparse.Namespace
) -> Iterator[dict[str, Any]]:
    """The lines of one case: ours beside every peer of it."""
    task = {**CASES[case], "folder": str(folder), "epochs": arguments.epochs}
    names = [name for name in (OURS, *task["peers"]) if name in (OURS, *arguments.peers)]
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for repetition in range(arguments.repetitions):
        turn = repetition % len(names)
        for name in names[turn:] + names[:turn]:
            path = folder / "task.json"
            path.write_text(json.dumps({**task, "seed": repetition + 1}))
            run = watched([*script(name), str(path)], environment(arguments.cores))
            found = json.loads(run.last_line)
            print(f"# {case}, {name}: {found}", file=sys.stderr, flush=True)
            runs[name].append(found)
    for name in names[1:]:
        yield line(case, task, prepared, runs[OURS], name, runs[name], arguments.cores)


def line(
    case: str, task: dict[str, Any], prepared: dict[str, Any], ours: list[dict[str, Any]],
    peer: str, theirs: list[dict[str, Any]], cores: int,
) -> dict[str, Any]:  # fmt: skip
    samples = prepared["train_rows"] * task["epochs"]
    mine, other = (
        statistics.median(samples / run["seconds"] for run in runs) for runs in (ours, theirs)
    )
    whole = statistics.median(samples / (run["seconds"] + run["encoding"]) for run in ours)
    quality = {
        "auc_ours": areas(ours), "auc_theirs": areas(theirs),
        "samples": samples, "epochs": task["epochs"], "test_rows": prepared["test_rows"],
        "encoding_seconds": round(statistics.median(run["encoding"] for run in ours), 2),
        "ours_with_encoding": round(whole, 1),
        "startup_seconds": {
            name: round(statistics.median(run["startup"] for run in runs), 1)
            for name, runs in (("ours", ours), ("theirs", theirs))
        },
        "ours_range": spread(samples, ours), "theirs_range": spread(samples, theirs),
        "torch": {"ours": ours[0]["torch"], "theirs": theirs[0]["torch"]},
    }  # fmt: skip
    if "filled" in prepared:
        quality["mean_sequence"] = prepared["filled"]
    return {
        "bench": "deep",
        "case": case,
        "ours": round(mine, 1),
        "peer": peer,
        "peer_version": theirs[0]["version"],
        "theirs": round(other, 1),
        "unit": "samples/s",
        "ratio": round(mine / other, 2),
        "ours_peak_mb": round(max(run["peak_mb"] for run in ours)),
        "theirs_peak_mb": round(max(run["peak_mb"] for run in theirs)),
        "quality": quality,
        "repetitions": len(ours),
        "cores": cores,
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
    }


def areas(runs: list[dict[str, Any]]) -> dict[str, float]:
    """By label the median of the held-out AUC."""
    return {
        label: round(statistics.median(run["auc"][label] for run in runs), 4)
        for label in runs[0]["auc"]
    }


def spread(samples: int, runs: list[dict[str, Any]]) -> list[float]:
    """The slowest and the fastest repetition, in samples a second."""
    speeds = [samples / run["seconds"] for run in runs]
    return [round(min(speeds), 1), round(max(speeds), 1)]


def prepare(data: str, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Arrow tables for ours and encoded arrays for the others; once for all cases of a log."""
    folder.mkdir()
    command = [
        sys.executable,
        str(HERE / "deep_data.py"),
        data,
        str((arguments.data / data).resolve()),
    ]
    command += [str(folder), str(arguments.rows)]
    run = watched(command, environment(arguments.cores))
    print(f"# {data}: {run.last_line}, {run.seconds:.1f} s", file=sys.stderr, flush=True)
    found: dict[str, Any] = json.loads(run.last_line)
    return found


def keep(lines: list[dict[str, Any]]) -> None:
    """Put ``lines`` in the place of earlier results of their cases and peers."""
    earlier = RESULTS.read_text().splitlines() if RESULTS.exists() else []
    known = {(r["case"], r["peer"]): r for r in [*map(json.loads, earlier), *lines]}
    RESULTS.write_text("".join(f"{json.dumps(result)}\n" for result in known.values()))


def parsed() -> argparse.Namespace:
    words, _, cases = (__doc__ or "").partition("\n\nCases:")
    parser = argparse.ArgumentParser(
        description=f"{words}\n\nCases:{cases}", epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument(
        "--data", type=Path, default=ROOT.parent / "shared" / "data",
        help="folder with census_income, kuairand and taobao_userbehavior",
    )  # fmt: skip
    parser.add_argument(
        "--rows", type=int, default=0,
        help="train on so many rows and test on as many: a trial, whose lines are not kept",
    )  # fmt: skip
    parser.add_argument(
        "--case", nargs="+", choices=list(CASES), default=list(CASES), metavar="CASE",
        help=f"only these of {', '.join(CASES)}",
    )  # fmt: skip
    parser.add_argument(
        "--peers", nargs="*", choices=(PLAIN, DEEPCTR, FUXICTR), default=(PLAIN, DEEPCTR, FUXICTR),
        help="only beside these",
    )  # fmt: skip
    parser.add_argument("--epochs", type=int, default=2, help="epochs of every fit (2)")
    parser.add_argument("--repetitions", type=int, default=3, help="fits per candidate (3)")
    parser.add_argument("--cores", type=int, default=os.cpu_count() or 1, help="threads of a fit")
    arguments = parser.parse_args()
    if min(arguments.epochs, arguments.repetitions, arguments.cores) < 1 or arguments.rows < 0:
        parser.error("--epochs, --repetitions and --cores are at least 1, --rows at least 0")
    wanted = dict.fromkeys(CASES[case]["data"] for case in arguments.case)
    missing = [name for name in wanted if not (arguments.data / name).is_dir()]
    if missing:
        parser.error(f"{arguments.data} holds no {', '.join(missing)}; name the folder with --data")
    return arguments


def main() -> int:
    arguments = parsed()
    with tempfile.TemporaryDirectory(prefix="rankmill-bench-") as scratch:
        prepared: dict[str, dict[str, Any]] = {}
        for case in arguments.case:
            data = CASES[case]["data"]
            folder = Path(scratch) / data
            if data not in prepared:
                prepared[data] = prepare(data, folder, arguments)
            lines = []
            for result in measure(case, folder, prepared[data], arguments):
                print(json.dumps(result), flush=True)
                lines.append(result)
            if not arguments.rows:
                keep(lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
