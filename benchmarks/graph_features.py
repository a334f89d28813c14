"""What yesterday's graph adds to rankers (V3): the same rows, with and without what it says.

    python benchmarks/graph_features.py --data ../shared/data      # both sources
    python benchmarks/graph_features.py --source simulator

Every business day's graph is built and embedded by Rankmill's own jobs, each day going on from the
one before; a row has the vectors of the day before its own, so that the first day has none. Trees
and MMOE are fitted without the graph, with the cosines of user and item and of user and room, and
(MMOE) with the vectors of all three as well; the last day is told. KuaiRand: 25 to 30 April 2022
are fitted on, 1 May told; the simulated market: two days and the third.

Besides all rows, cold items (fewer than 10 impressions in 15 days before) and cold users (fewer
than 5) are judged apart. Differences to the same model without the graph come with 95 % bootstrap
intervals over ranking groups.
"""

from __future__ import annotations

import datetime as dt
import os
import sys
import time
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
from benchmarks.intervals import auc_interval  # noqa: E402
from benchmarks.kuairand import CONFIG  # noqa: E402
from feature_store import hours as hr  # noqa: E402
from feature_store.embedding_sets import newest_space  # noqa: E402
from feature_store.embedding_views import SIMILARITIES  # noqa: E402
from feature_store.services import SERVICES  # noqa: E402
from feature_store.tables import HourWriter, Staged, Store  # noqa: E402
from jobs.build_graph import build  # noqa: E402
from jobs.support.deep_features import deep_spec  # noqa: E402
from jobs.support.embeddings import configured, node_rows  # noqa: E402
from jobs.support.fencing import claim  # noqa: E402
from jobs.support.session import spark_session  # noqa: E402
from jobs.support.settings import Settings  # noqa: E402
from jobs.support.training import held_out  # noqa: E402
from models import MODELS, FeatureSpec  # noqa: E402
from models.gbdt import GBDTConfig, GBDTRanker  # noqa: E402
from models.graph.heterograph import EDGE_COLUMNS  # noqa: E402
from models.metapath2vec import Metapath2Vec  # noqa: E402
from models.metrics import auc, group_codes, ndcg_at_k, paired_bootstrap  # noqa: E402

RESULTS: Final = ROOT / "benchmarks" / "results" / "graph_features.jsonl"
TASKS: Final = ("click", "long_view")
WITHOUT, COSINES, VECTORS = "without", "similarities", "similarities and vectors"
MMOE: Final = {"epochs": 4, "batch_size": 1024, "patience": 2,
               "tasks": {**{task: {} for task in TASKS},
                         "stay": {"kind": "log_value", "weight": 0.2, "score": 0.0}}}  # fmt: skip
COLD: Final = {"cold items": ("item_impression_15d", 10), "cold users": ("user_impression_15d", 5)}


@dataclass(frozen=True)
class Rows:
    """Rows of a source with everything that the graph says of them, and what MMOE reads."""

    source: str
    train: pa.Table
    test: pa.Table
    spec: FeatureSpec


def prepared(day: HeldOutDay) -> Rows:
    """Rows of a source, the graph of every day before the last embedded."""
    before, service = hr.add(day.cut, -1), SERVICES["deep_graph_ranking"]
    embed_days(day.store, day.settings, day.first, before)
    embedded = day.store.readable_hours("node_embeddings", day.first, before)
    space = newest_space(day.store, embedded, None)
    labels = [f"label_{task}" for task in MMOE["tasks"]]
    spec = deep_spec(service, labels, day.settings.pretrain, space)
    return Rows(day.source, day.fitted_on(service), day.told_rows(service), spec)


def embed_days(store: Store, settings: Settings, first: str, last: str) -> None:
    """Commit the vectors of every whole business day in [first, last]."""
    zone = settings.open_source().time_zone
    days = sorted({hr.day_of(hour, zone).isoformat() for hour in hr.hour_range(first, last)})
    days = [day for day in days if hr.date_hours(day, zone)[0] >= first]
    earlier: Metapath2Vec | None = None
    with spark_session("bench", settings.spark) as spark:
        for day in days:
            hour = hr.date_hours(day, zone)[-1]
            build(spark, store, settings, day, claim(store, "build_graph", [hour], "bench"), False)
            model = configured(settings)
            edges = store.read("edges", [hour], EDGE_COLUMNS)
            report = model.fit_edges(edges, day, earlier)
            staged, part = Staged("node_embeddings"), HourWriter(store, "node_embeddings", hour)
            part.write(node_rows(model, hour))
            part.close(staged)
            store.commit(staged, claim(store, "embed_graph", [hour], "bench"))
            print(f"[{day}] {len(model.nodes):,} vectors of {edges.num_rows:,} edges in space "
                  f"{model.embedding_version}, {report.seconds:.1f} s", flush=True)  # fmt: skip
            earlier = model


def reduced(spec: FeatureSpec, variant: str) -> FeatureSpec:
    """``spec`` with what a variant reads of the graph."""
    names = {one.name for one in SIMILARITIES}
    dense = spec.dense if variant != WITHOUT else tuple(c for c in spec.dense if c not in names)
    return replace(spec, dense=dense, pretrained=spec.pretrained if variant == VECTORS else ())


def fitted(family: str, variant: str, rows: Rows, seed: int) -> Any:
    held = pa.array(held_out(rows.train["group_id"]))
    train, valid = rows.train.filter(pc.invert(held)), rows.train.filter(held)
    spec = reduced(rows.spec, variant)
    if family == "gbdt":
        of_trees = FeatureSpec(
            dense=spec.dense, sparse=tuple(c for c in spec.sparse if not c.name.endswith("_id")),
            labels=tuple(f"label_{task}" for task in TASKS),
        )  # fmt: skip
        config = GBDTConfig.from_dict({"tasks": list(TASKS), **CONFIG, "seed": seed})
        trees = GBDTRanker(config, of_trees)
        trees.fit(train, valid)
        return trees
    kind: Any = MODELS[family]
    model = kind.build({**MMOE, "seed": seed}, replace(spec, sequences=()))
    model.fit(train, valid)
    return model


def populations(test: pa.Table) -> dict[str, np.ndarray]:
    """Masks of the rows that are judged together."""
    found = {"all": np.ones(len(test), bool)}
    for name, (column, fewer) in COLD.items():
        found[name] = pc.fill_null(test[column], 0).to_numpy() < fewer
    return found


def judged(
    rows: Rows, family: str, variant: str, scores: dict[str, np.ndarray],
    base: dict[str, np.ndarray], seconds: float, seeds: int,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """A line for every task and population."""
    for task in TASKS:
        column = rows.test[f"label_{task}"]
        mature = pc.is_valid(column).to_numpy()
        for name, mask in populations(rows.test).items():
            kept = mask & mature
            told = column.filter(pa.array(kept)).to_numpy()
            labels = (told > 0).astype(np.float64)
            groups = rows.test["group_id"].filter(pa.array(kept))
            mine, other = scores[task][kept], base[task][kept]
            by_group = [ndcg_at_k(labels, s, groups, 10).values for s in (mine, other)]
            apart = paired_bootstrap(by_group[0] - by_group[1], seed=7)
            groups_told = int(np.isfinite(by_group[0]).sum())
            ndcg = [float(np.nanmean(v)) if groups_told else None for v in by_group]
            codes = np.asarray(group_codes(groups))
            yield {
                "bench": "graph_features",
                "case": f"{rows.source}: {family} {variant}, {task}, {name}",
                "ours": _rounded(ndcg[0]), "peer": f"{family} without the graph",
                "peer_version": "same run", "theirs": _rounded(ndcg[1]), "unit": "ndcg_at_10",
                "ratio": round(ndcg[0] / ndcg[1], 4) if groups_told else None,
                "ours_peak_mb": None, "theirs_peak_mb": None,
                "quality": {
                    "source": rows.source, "model": family, "variant": variant, "task": task,
                    "population": name, "rows": int(kept.sum()),
                    "groups": groups_told,
                    "ndcg_difference": [_rounded(value) for value in apart],
                    "auc": [_rounded(auc(labels, s)) for s in (mine, other)],
                    "auc_difference": [
                        _rounded(v) for v in auc_interval(labels, mine, other, codes, 7)
                    ],
                    "similarity_known": round(1 - rows.test.filter(pa.array(kept))[
                        SIMILARITIES[0].name].null_count / max(int(kept.sum()), 1), 4),
                    "train_seconds": round(seconds, 1),
                },
                "repetitions": seeds, "cores": os.cpu_count(),
                "date": dt.datetime.now(dt.UTC).date().isoformat(),
            }  # fmt: skip


def _rounded(value: float | None) -> float | None:
    """Five places; None, which JSON knows, for what is not defined."""
    return None if value is None or np.isnan(value) else round(float(value), 5)


def compared(rows: Rows, seeds: int) -> Iterator[dict[str, Any]]:
    """Every family and variant; probabilities are means over the seeds."""
    print(f"[{rows.source}] train {rows.train.num_rows:,} rows, test {rows.test.num_rows:,}")
    for family, variants in (("gbdt", (COSINES,)), ("mmoe", (COSINES, VECTORS))):
        base: dict[str, np.ndarray] = {}
        for variant in (WITHOUT, *variants):
            began = time.monotonic()
            found = [
                fitted(family, variant, rows, seed).predict(rows.test)
                for seed in range(1, seeds + 1)
            ]
            scores = {task: np.mean([one[task] for one in found], axis=0) for task in TASKS}
            seconds = (time.monotonic() - began) / seeds
            if variant == WITHOUT:
                base = scores
                continue
            yield from judged(rows, family, variant, scores, base, seconds, seeds)


def main() -> int:
    parser = source_parser(__doc__, SOURCES)
    parser.add_argument("--seeds", type=int, default=3, help="fits that are averaged [%(default)s]")
    given = parser.parse_args()
    for source in sources_of(given, SOURCES):
        with held_out_day(source, given.data) as day:
            renewed(RESULTS, source, compared(prepared(day), given.seeds))
    return 0


if __name__ == "__main__":
    sys.exit(main())
