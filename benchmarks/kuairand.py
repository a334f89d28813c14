"""KuaiRand: train on the days before 1 May 2022 (UTC+8), test on that day, through Rankmill's own
jobs.

    python benchmarks/kuairand.py --data ../shared/data/kuairand

Ingests the log, extracts features and builds samples exactly as the hourly pipeline does (one Spark
session), fits the GBDT ranker once per label, and prints one JSON line per label and metric. The
peer, measured on the same rows in the same run, is video popularity: the smoothed long-run rate of
the label.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime as dt
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store import hours as hr
from feature_store.tables import Store
from feature_store.training_set import training_set
from feature_store.views import dense_columns, sparse_columns
from jobs.build_samples import build
from jobs.extract_features import extract
from jobs.ingest_events import ingest
from jobs.support.arguments import job_parser
from jobs.support.fencing import claim
from jobs.support.session import spark_session
from jobs.support.settings import Settings, load_settings
from jobs.support.training import split
from jobs.validate_events import validate
from models import FeatureSpec, SparseColumn
from models.gbdt import GBDTConfig, GBDTRanker
from models.metrics import evaluate_ranking, ndcg_at_k, paired_bootstrap

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "kuairand.jsonl"
TEST_DATE = "2022-05-01"
LABELS = ("click", "long_view")
REFERENCE = {"click": {"auc": 0.742, "ndcg_at_10": 0.846},
             "long_view": {"auc": 0.738, "ndcg_at_10": 0.840}}  # fmt: skip
CONFIG = {
    "rounds": 800, "learning_rate": 0.03, "num_leaves": 31, "min_data_in_leaf": 100,
    "feature_fraction": 0.4, "bagging_fraction": 0.8, "lambda_l2": 5.0, "early_stopping_rounds": 60,
}  # fmt: skip


@contextlib.contextmanager
def store_of_the_week(first: str, last: str, settings: Settings) -> Iterator[Store]:
    """A throw-away store with samples and outcomes of [first, last]."""
    with tempfile.TemporaryDirectory(prefix="rankmill-bench-") as folder:
        store = Store(f"{folder}/warehouse", f"sqlite:///{folder}/catalog.db")
        hours = hr.hour_range(first, last)
        zone = settings.open_source().time_zone
        ingest(store, settings, hours, "bench", dry=False)
        validate(store, settings, hours, "bench", "benchmark", dry=False)
        with spark_session("bench", settings.spark) as spark:
            writer = claim(store, "extract_features", hours, "bench")
            extract(spark, store, hours, writer, zone, dry=False)
            writer = claim(store, "build_samples", hours, "bench")
            build(spark, store, settings, hours, writer, dry=False)
        yield store
        store.close()


def fitted(rows: pa.Table, label: str) -> GBDTRanker:
    """The ranker of one label, stopped early on 10 % of the training groups."""
    spec = FeatureSpec(
        dense=dense_columns(),
        sparse=tuple(SparseColumn(name, buckets) for name, buckets in sparse_columns()),
        labels=(f"label_{label}",),
    )
    model = GBDTRanker(GBDTConfig.from_dict({"tasks": [label], **CONFIG}), spec)
    train, held = split(rows)
    model.fit(train, held)
    return model


def popularity(rows: pa.Table, label: str) -> np.ndarray:
    """Video popularity: its smoothed rate of the label over the longest window."""
    column = {"click": "item_ctr_7d", "long_view": "item_long_view_rate_7d"}[label]
    return rows[column].to_numpy().astype(np.float64)


def lines(label: str, rows: pa.Table, model: GBDTRanker, seconds: float) -> Iterator[dict]:
    """One result per metric: ours, popularity's, and the interval of the NDCG difference."""
    labels = (rows[f"label_{label}"].to_numpy() > 0).astype(np.float64)
    groups = rows["group_id"]
    scores, peer = model.score(rows), popularity(rows, label)
    ours, theirs = (evaluate_ranking(labels, s, groups) for s in (scores, peer))
    per_group = [ndcg_at_k(labels, s, groups, 10).values for s in (scores, peer)]
    interval = paired_bootstrap(per_group[0] - per_group[1], seed=7)
    for metric in ("auc", "ndcg_at_10", "gauc"):
        yield {
            "bench": "kuairand",
            "case": f"{label}_{metric}",
            "ours": round(ours[metric], 5),
            "peer": "video popularity",
            "peer_version": "same run",
            "theirs": round(theirs[metric], 5),
            "unit": metric,
            "ratio": round(ours[metric] / theirs[metric], 4),
            "ours_peak_mb": None,
            "theirs_peak_mb": None,
            "quality": {
                "reference": REFERENCE[label].get(metric),
                "groups": int(ours["groups"]),
                "test_rows": rows.num_rows,
                "ndcg_difference": [round(v, 5) for v in interval],
                "fit_seconds": round(seconds, 1),
            },
            "repetitions": 1,
            "cores": os.cpu_count(),
            "date": dt.datetime.now(dt.UTC).date().isoformat(),
        }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=str(ROOT.parent / "shared" / "data" / "kuairand"))
    arguments = parser.parse_args()
    config = ["--config", str(ROOT / "conf" / "kuairand.yaml"), "--data", arguments.data]
    settings = load_settings(job_parser("bench", "", "").parse_args(config))
    first, last = settings.open_source().span()
    test = [h for h in hr.date_hours(TEST_DATE, "Asia/Shanghai") if first <= h <= last]
    cut = hr.add(last, 1)
    results = []
    with store_of_the_week(first, last, settings) as store:
        windows = settings.open_source().windows
        before = training_set(store, first, hr.add(test[0], -1), test[0], windows)
        held_out = training_set(store, test[0], test[-1], cut, windows)
        print(f"[kuairand] train {before.num_rows:,} rows, test {held_out.num_rows:,} rows "
              f"(positives {pc.sum(held_out['label_click']).as_py():,.0f} clicks)")  # fmt: skip
        for label in LABELS:
            started = time.monotonic()
            model = fitted(before, label)
            for line in lines(label, held_out, model, time.monotonic() - started):
                print(json.dumps(line), flush=True)
                results.append(json.dumps(line))
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text("\n".join(results) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
