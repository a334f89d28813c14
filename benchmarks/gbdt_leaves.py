"""Do leaves carry signal? A linear model on the leaves of trees against the trees alone.

    python benchmarks/gbdt_leaves.py --data ../shared/data          # both sources
    python benchmarks/gbdt_leaves.py --source kuairand

After He et al., Practical Lessons from Predicting Clicks on Ads at Facebook, ADKDD 2014, section 3:
trees are fitted on earlier days, the linear model on the leaves of the next day's rows, and the day
after is told. KuaiRand: 25 to 29 April 2022, 30 April, 1 May (UTC+8); the simulated market: its
three days. The measure is normalised entropy (log loss over the entropy of the test rows' rate,
smaller is better), and its share of that of the trees alone; published are 96.58 % for trees and
linear model together and 99.43 % for the linear model alone.

A day that the trees have not seen is worth something by itself. Beside the published method
therefore stand trees fitted on the linear model's day too, and a linear model that is pulled to
what the trees say and not to 0. The linear model alone reads the columns of the trees in bins of
equal counts, on the rows of the linear model on the leaves. Every penalty is chosen on a tenth of
the ranking groups that it is fitted on. Intervals are 95 % bootstrap intervals over groups.
"""

from __future__ import annotations

import datetime as dt
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # benchmarks are not installed

from benchmarks.by_source import renewed, source_parser, sources_of  # noqa: E402
from benchmarks.held_out_day import SOURCES, HeldOutDay, held_out_day  # noqa: E402
from benchmarks.kuairand import CONFIG  # noqa: E402
from feature_store import hours as hr  # noqa: E402
from feature_store.views import dense_columns, sparse_columns  # noqa: E402
from jobs.support.training import held_out, split  # noqa: E402
from models import FeatureSpec, SparseColumn, encode_sparse  # noqa: E402
from models.gbdt import GBDTConfig, GBDTRanker  # noqa: E402
from models.gbdt_leaves import LeafEncoder, LeafRows  # noqa: E402
from models.leaf_regression import LeafRegression  # noqa: E402
from models.metrics import (  # noqa: E402
    expected_calibration_error,
    group_codes,
    log_loss,
    normalised_entropy,
)

RESULTS: Final = ROOT / "benchmarks" / "results" / "gbdt_leaves.jsonl"
TASKS: Final = ("click", "long_view")
PUBLISHED: Final = {"leaves": 0.9658, "binned features": 0.9943}
PENALTIES: Final = (10.0, 100.0, 1000.0, 10_000.0)
BINS: Final = 32
RESAMPLES: Final = 1000


@dataclass(frozen=True)
class Rows:
    """Rows of a source: of the trees' days, the linear model's day, all of these, and the test."""

    source: str
    earlier: pa.Table
    later: pa.Table
    both: pa.Table
    test: pa.Table


def rows_of(day: HeldOutDay) -> Rows:
    """Rows of a source; labels are those known when the day after begins."""
    day_before = hr.add(day.cut, -24)
    earlier, later = day.rows(day.first, day_before), day.rows(day_before, day.cut)
    return Rows(day.source, earlier, later, day.fitted_on(), day.told_rows())


def trees_of(rows: pa.Table) -> GBDTRanker:
    """Trees stopped early on 10 % of the groups."""
    spec = FeatureSpec(
        dense=dense_columns(),
        sparse=tuple(SparseColumn(name, buckets) for name, buckets in sparse_columns()),
        labels=tuple(f"label_{task}" for task in TASKS),
    )
    trees = GBDTRanker(GBDTConfig.from_dict({"tasks": list(TASKS), **CONFIG}), spec)
    trees.fit(*split(rows))
    return trees


def told(rows: pa.Table, task: str) -> tuple[pa.Table, np.ndarray]:
    """The rows whose label of ``task`` is mature, and these labels."""
    column = rows[f"label_{task}"]
    kept = rows.filter(pc.is_valid(column))
    return kept, (pc.drop_null(column).to_numpy() > 0).astype(np.float64)


class Binned:
    """The columns that the trees read as a linear model reads them: one bin is one weight."""

    def __init__(self, rows: pa.Table) -> None:
        places = np.linspace(0, 1, BINS + 1)[1:-1]
        self.edges = {}
        for name in dense_columns():
            values = self._numbers(rows, name)
            there = values[~np.isnan(values)]
            self.edges[name] = np.unique(np.quantile(there, places)) if len(there) else places[:0]

    @staticmethod
    def _numbers(rows: pa.Table, name: str) -> np.ndarray:
        return pc.cast(rows[name], pa.float64()).to_numpy()

    def encode(self, rows: pa.Table) -> LeafRows:
        sizes = [len(edges) + 2 for edges in self.edges.values()]  # nulls have a bin of their own
        sizes += [buckets for _, buckets in sparse_columns()]
        ids = np.empty((rows.num_rows, len(sizes)), dtype=np.int32)
        for place, (name, edges) in enumerate(self.edges.items()):
            values = self._numbers(rows, name)
            found = np.searchsorted(edges, values)
            ids[:, place] = np.where(np.isnan(values), len(edges) + 1, found)
        for place, (name, buckets) in enumerate(sparse_columns(), len(self.edges)):
            ids[:, place] = encode_sparse(rows[name], buckets)
        ids += np.cumsum([0, *sizes[:-1]]).astype(np.int32)
        return LeafRows("bins", dict.fromkeys(TASKS, ids), dict.fromkeys(TASKS, sum(sizes)))


def tuned(
    rows: LeafRows, task: str, labels: np.ndarray, held: np.ndarray,
    centre: np.ndarray | None = None,
) -> tuple[LeafRegression, float]:  # fmt: skip
    """The model with the penalty that says most of the ``held`` rows, fitted on all of them."""

    def part(mask: np.ndarray) -> LeafRows:
        return replace(rows, ids={task: rows.ids[task][mask]})

    fit, judge = part(~held), part(held)
    losses = {}
    for l2 in PENALTIES:
        model = LeafRegression.fit(fit, task, labels[~held], l2, centre)
        losses[l2] = log_loss(labels[held], model.predict(judge))
    best = min(losses, key=losses.__getitem__)
    return LeafRegression.fit(rows, task, labels, best, centre), best


def probabilities(
    rows: Rows, task: str, trees: GBDTRanker, newer: GBDTRanker
) -> Iterator[tuple[str, np.ndarray, dict[str, Any]]]:
    """What every contender says of the test rows, and what there is to say of it."""
    test, _ = told(rows.test, task)
    later, labels = told(rows.later, task)
    encoder = LeafEncoder(trees)
    leaves, asked = encoder.encode(later), encoder.encode(test)
    held = held_out(later["group_id"])
    size = {"trees": encoder.layout.tasks[task].trees, "weights": leaves.leaves[task]}
    for name, centre in (("leaves", None), ("leaves from the trees", encoder.values(task))):
        model, l2 = tuned(leaves, task, labels, held, centre)
        yield name, model.predict(asked), {"l2": l2, "fitted_rows": len(labels), **size}
    bins = Binned(later)
    raw = bins.encode(later)
    model, l2 = tuned(raw, task, labels, held)
    more = {"l2": l2, "fitted_rows": len(labels), "trees": 0, "weights": raw.leaves[task]}
    yield "binned features", model.predict(bins.encode(test)), more
    counted = {"l2": None, "trees": LeafEncoder(newer).layout.tasks[task].trees, "weights": None}
    yield "trees of both", newer.predict(test)[task], {"fitted_rows": rows.both.num_rows, **counted}


def share_interval(
    labels: np.ndarray, ours: np.ndarray, theirs: np.ndarray, groups: np.ndarray
) -> list[float]:
    """Our share of their log loss, and its 95 % interval with groups drawn again; the entropy of
    the rate, by which both are divided, cancels out."""
    losses = []
    for told_of in (ours, theirs):
        likely = np.where(labels == 1, told_of, 1 - told_of)
        losses.append(np.bincount(groups, weights=-np.log(likely)))
    rng = np.random.default_rng(7)
    drawn = rng.integers(0, len(losses[0]), (RESAMPLES, len(losses[0])))
    shares = losses[0][drawn].sum(1) / losses[1][drawn].sum(1)
    low, high = np.quantile(shares, [0.025, 0.975])
    return [float(losses[0].sum() / losses[1].sum()), float(low), float(high)]


def lines(rows: Rows) -> Iterator[dict[str, Any]]:
    """One result a task and contender, beside the trees of the earlier days."""
    sizes = {name: getattr(rows, name).num_rows for name in ("earlier", "later", "test")}
    print(f"[{rows.source}] rows: {sizes}", flush=True)
    trees, newer = trees_of(rows.earlier), trees_of(rows.both)
    for task in TASKS:
        test, labels = told(rows.test, task)
        groups = np.asarray(group_codes(test["group_id"]))
        base = trees.predict(test)[task]
        theirs = normalised_entropy(labels, base)
        for name, said, more in probabilities(rows, task, trees, newer):
            ours = normalised_entropy(labels, said)
            share = share_interval(labels, said, base, groups)
            errors = [expected_calibration_error(labels, one) for one in (said, base)]
            yield {
                "bench": "gbdt_leaves", "case": f"{rows.source}: {name}, {task}",
                "ours": round(ours, 5), "peer": "trees alone", "peer_version": "same run",
                "theirs": round(theirs, 5), "unit": "normalised_entropy",
                "ratio": round(theirs / ours, 4), "ours_peak_mb": None, "theirs_peak_mb": None,
                "quality": {
                    "source": rows.source, "task": task, "contender": name,
                    "share": [round(value, 5) for value in share],
                    "published_share": PUBLISHED.get(name),
                    "calibration_error": [round(error, 5) for error in errors],
                    "rate": round(float(labels.mean()), 5), "test_rows": len(labels),
                    "earlier_rows": sizes["earlier"], **more,
                },
                "repetitions": 1, "cores": os.cpu_count(),
                "date": dt.datetime.now(dt.UTC).date().isoformat(),
            }  # fmt: skip


def main() -> int:
    given = source_parser(__doc__, SOURCES).parse_args()
    for source in sources_of(given, SOURCES):
        with held_out_day(source, given.data) as day:
            rows = rows_of(day)
        renewed(RESULTS, source, lines(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
