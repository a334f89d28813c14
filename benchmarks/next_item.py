"""The next item, ranked among all items: HR@10 and NDCG@10 of the transformer's sequence encoder.

    python benchmarks/next_item.py --sequences ../shared/data/amazon_beauty/Beauty.txt.gz
    python benchmarks/next_item.py --sequences FILE --epochs 2 --users 2000

The file has one user a line: the user's id, then item ids in time order. Of every user the last
item is tested and the one before validates; the epoch is chosen by the validation alone. No
item is drawn: all are ranked, and in a second way all but those that the user has seen already,
which is how the published code of S3-Rec ranks. The references are published for the same file and
split (Zhou et al., S3-Rec, CIKM 2020, table 2).
"""

from __future__ import annotations

import argparse
import datetime as dt
import gzip
import importlib.metadata
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch

from models import MODELS, FeatureSpec
from models.base import SequenceColumn
from models.encoding import Rows
from models.network import tensors

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "next_item.jsonl"
LENGTH: Final = 50
ALL: Final = "all items"
UNSEEN: Final = "all but those seen"
WAYS: Final = (ALL, UNSEEN)
Figures = dict[str, tuple[float, float]]  # by way of ranking HR@10 and NDCG@10
REFERENCES: Final = {
    "GRU4Rec": (0.0283, 0.0137), "SASRec": (0.0605, 0.0318), "S3-Rec": (0.0647, 0.0327),
}  # fmt: skip
CONFIG: Final[dict[str, Any]] = {
    "tasks": ["none"],
    "min_positives": 0,
    "tokens": [["items"]],
    "target": [],
    "embedding": 64,
    "heads": 2,
    "blocks": 2,
    "hidden": 256,
    "dropout": 0.4,
    "epochs": 1,
    "batch_size": 256,
    "learning_rate": 0.001,
    "window": 100_000,
    "precision": "bfloat16",
}


def read(path: Path, users: int | None) -> list[list[str]]:
    """The items of every user with at least three."""
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    found = [line.split()[1:] for line in text.splitlines()]
    return [items for items in found if len(items) >= 3][:users]


def rows_of(sequences: list[list[str]]) -> pa.Table:
    """A row a user; the label of the task that is not learned is open."""
    return pa.table(
        {
            "items": pa.array(sequences, pa.list_(pa.string())),
            "label_none": pa.nulls(len(sequences), pa.float32()),
        }
    )


def ranks(
    model: Any, rows: Rows, wanted: npt.NDArray[np.int32], seen: list[npt.NDArray[np.int32]]
) -> dict[str, npt.NDArray[np.int64]]:
    """By way of ranking the rank, from 0, of each row's wanted item; ties are against us."""
    found: dict[str, list[npt.NDArray[np.int64]]] = {way: [] for way in WAYS}
    model.module.eval()
    with torch.no_grad():
        for start in range(0, rows.size, 512):
            part = rows.at(slice(start, start + 512))
            scores = model.module.next_item_scores(tensors(part, torch.device("cpu")))
            codes = torch.from_numpy(wanted[start : start + 512]).long()[:, None]
            own = scores.gather(1, codes)
            found[ALL].append(((scores >= own).sum(1) - 1).numpy())
            for row, known in enumerate(seen[start : start + 512]):
                scores[row, torch.from_numpy(known).long()] = -torch.inf
            scores.scatter_(1, codes, own)
            found[UNSEEN].append(((scores >= own).sum(1) - 1).numpy())
    return {way: np.concatenate(places) for way, places in found.items()}


def judged(place: npt.NDArray[np.int64]) -> tuple[float, float]:
    """HR@10 and NDCG@10 of ranks."""
    hit = place < 10
    return float(hit.mean()), float((hit / np.log2(place + 2.0)).mean())


class Chosen:
    """Judges every epoch on the validation, and keeps the test of the best one."""

    def __init__(self, model: Any, sequences: list[list[str]]) -> None:
        self.model, self.sequences = model, sequences
        nothing = dict.fromkeys(WAYS, (0.0, 0.0))
        self.best, self.test, self.epoch = nothing, nothing, -1

    def _judge(self, back: int) -> Figures:
        encoder = self.model.encoder
        rows = encoder.encode(rows_of([items[:-back] for items in self.sequences]))
        codes = encoder.vocabularies["items"].codes
        wanted = codes(pa.array([items[-back] for items in self.sequences]))
        seen = [codes(pa.array(items[:-back])) for items in self.sequences]
        places = ranks(self.model, rows, wanted, seen)
        return {way: judged(found) for way, found in places.items()}

    def __call__(self, epoch: int) -> None:
        if epoch == self.model.config.training.pretrain_epochs:
            return  # the epoch of the task that is not learned
        found = self._judge(2)
        if found[ALL][1] > self.best[ALL][1]:
            self.best, self.epoch, self.test = found, epoch + 1, self._judge(1)
        hits, gain = found[ALL]
        print(f"[next_item] epoch {epoch + 1}: validation HR@10 {hits:.4f} NDCG@10 "
              f"{gain:.4f}; best so far of epoch {self.epoch}", flush=True)  # fmt: skip


def lines(
    chosen: Chosen, given: argparse.Namespace, items: int, parameters: int
) -> Iterator[dict[str, Any]]:
    """One result a way of ranking, reference and metric."""
    for way in WAYS:
        for name, published in REFERENCES.items():
            for place, metric in enumerate(("HR@10", "NDCG@10")):
                ours = chosen.test[way][place]
                yield {
                    "bench": "next_item", "case": f"{metric} of {items:,}, {way}",
                    "ours": round(ours, 5), "peer": f"{name}, published",
                    "peer_version": "S3-Rec, table 2", "theirs": published[place], "unit": metric,
                    "ratio": round(ours / published[place], 3), "ours_peak_mb": None,
                    "theirs_peak_mb": None,
                    "quality": {
                        "validation": [round(value, 5) for value in chosen.best[way]],
                        "epoch": chosen.epoch, "epochs": given.epochs,
                        "parameters": parameters, "seed": given.seed,
                        "torch": importlib.metadata.version("torch").split("+")[0],
                    },
                    "repetitions": 1, "cores": os.cpu_count(),
                    "date": dt.datetime.now(dt.UTC).date().isoformat(),
                }  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="\n".join(__doc__.splitlines()[2:4]),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    default = ROOT.parent / "shared" / "data" / "amazon_beauty" / "Beauty.txt.gz"
    parser.add_argument("--data", type=Path, help="folder with Beauty.txt.gz")
    parser.add_argument("--sequences", type=Path, default=default, help="the file [%(default)s]")
    parser.add_argument("--epochs", type=int, default=40, help="[%(default)s]")
    parser.add_argument("--seed", type=int, default=7, help="[%(default)s]")
    parser.add_argument("--users", type=int, help="only the first so many; writes no result")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=JSON",
                        help="another value of the configuration; writes no result")  # fmt: skip
    given = parser.parse_args()
    path = given.data / "Beauty.txt.gz" if given.data else given.sequences
    sequences = read(path, given.users)
    items = len({item for user in sequences for item in user})
    changed = {key: json.loads(value) for key, value in (pair.split("=", 1) for pair in given.set)}
    spec = FeatureSpec(sequences=(SequenceColumn("items", items + 2, LENGTH, kind="vocabulary"),))
    config = {**CONFIG, "pretrain_epochs": given.epochs, "seed": given.seed, **changed}
    model = MODELS["live_transformer"].build(config, spec)  # type: ignore[attr-defined]
    # Every item has a number, also one that is only tested.
    model.encoder.vocabularies["items"].grow(pa.array([i for user in sequences for i in user]))
    table = rows_of([user[:-2] for user in sequences])
    chosen = Chosen(model, sequences)
    print(f"[next_item] {len(sequences):,} users, {items:,} items, "
          f"{sum(map(len, sequences)):,} actions", flush=True)  # fmt: skip
    began = time.monotonic()
    model.fit_batches(
        lambda: iter(table.to_batches(8192)), lambda batch: np.zeros(batch.num_rows, bool),
        lambda line: print(f"[next_item] {line}", flush=True), watch=chosen,
    )  # fmt: skip
    print(f"[next_item] {time.monotonic() - began:,.0f} s", flush=True)
    found = list(lines(chosen, given, items, model.parameters))
    print("\n".join(json.dumps(line) for line in found))
    if not changed and given.users is None:
        RESULTS.write_text("".join(json.dumps(line) + "\n" for line in found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
