"""The ladder of rankers on the same rows: trees, wide and deep, shared bottom, MMOE, dual target
attention and the live transformer, with and without BiasNet.

    python benchmarks/ladder.py --data ../shared/data          # both sources
    python benchmarks/ladder.py --source simulator --models gbdt mmoe
    python benchmarks/ladder.py --models gbdt "gbdt V1" --keep

``gbdt`` are trees a task; ``gbdt V1`` is the first live-streaming ranker, one pointwise booster on
clicks whose samples weigh more for a long stay and, where there are any, an order: one score for
both tasks, and no probability.

KuaiRand is trained on the days to 30 April 2022 and tested on 1 May (UTC+8); the simulated market
on its first two days and tested on the third. Per task: AUC, GAUC, NDCG@10, log loss, and the
interval of the difference in NDCG@10 to the trees, paired by group; parameters, seconds of
training, and the time to score 500 candidates. Where positions exist, BiasNet's curve is compared
with the true one.
"""

from __future__ import annotations

import datetime as dt
import os
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # benchmarks are not installed

from benchmarks.by_source import kept_lines, renewed, source_parser, sources_of  # noqa: E402
from benchmarks.held_out_day import SOURCES, HeldOutDay, held_out_day  # noqa: E402
from feature_store.sequence_sets import with_sequences  # noqa: E402
from feature_store.services import SERVICES  # noqa: E402
from feature_store.sources.simulator import position_bias  # noqa: E402
from jobs.support.deep_features import deep_spec  # noqa: E402
from jobs.support.settings import Settings  # noqa: E402
from jobs.support.training import held_out  # noqa: E402
from models import MODELS, FeatureSpec  # noqa: E402
from models.gbdt import GBDTConfig, GBDTRanker  # noqa: E402
from models.metrics import evaluate_ranking, ndcg_at_k, paired_bootstrap  # noqa: E402

RESULTS: Final = ROOT / "benchmarks" / "results" / "ladder.jsonl"
PICTURE: Final = ROOT / "docs" / "pictures" / "ladder.png"
FAMILIES: Final = ("wide_deep", "shared_bottom", "mmoe", "dual_attention", "live_transformer")
TASKS: Final = ("click", "long_view")
VALUES: Final = {"stay": {"kind": "log_value", "weight": 0.2, "score": 0.0}}
LOOP: Final = {"epochs": 4, "batch_size": 1024, "learning_rate": 0.001, "patience": 2}
TREES: Final = {
    "rounds": 800, "learning_rate": 0.03, "num_leaves": 31, "min_data_in_leaf": 100,
    "feature_fraction": 0.4, "bagging_fraction": 0.8, "lambda_l2": 5.0, "early_stopping_rounds": 60,
}  # fmt: skip
CANDIDATES: Final = 500
V1: Final = "gbdt V1"
WEIGHTS: Final = {"conversion": 10.0, "stay": {"log": 0.5}}


@dataclass(frozen=True)
class Rows:
    """What is trained on and what is tested, with sequences; ``curve`` is the true one."""

    source: str
    train: pa.Table
    test: pa.Table
    settings: Settings
    curve: np.ndarray | None


def stored(day: HeldOutDay) -> Rows:
    """The rows of a source, with sequences."""
    curve = None
    if day.market is not None:
        curve = np.log(position_bias(np.arange(1, day.market.slate_size + 1), day.market))
    service = SERVICES["deep_ranking"]
    train, told = (
        _sequenced(day, rows) for rows in (day.fitted_on(service), day.told_rows(service))
    )
    return Rows(day.source, train, told, day.settings, curve)


def _sequenced(day: HeldOutDay, rows: pa.Table) -> pa.Table:
    hours = sorted(pc.unique(rows["hour"]).to_pylist())
    return with_sequences(day.store, rows, SERVICES["deep_ranking"].sequence_views(), hours)


def fitted(name: str, rows: Rows) -> Any:
    """The model of a rung, ``family`` or ``family + BiasNet``, fitted on the training rows."""
    family, _, wrapped = name.partition(" + ")
    held = pa.array(held_out(rows.train["group_id"]))
    train, valid = rows.train.filter(pc.invert(held)), rows.train.filter(held)
    service = SERVICES["deep_ranking"]
    labels = [f"label_{task}" for task in (*TASKS, *VALUES)]
    spec = deep_spec(service, labels, rows.settings.pretrain)
    if family in ("gbdt", V1):
        return trees(family, spec, train, valid)
    several = {task: {} for task in TASKS} | dict(VALUES)
    config = {**LOOP, "tasks": several, "debias": "bias_net" if wrapped else "none"}
    kind: Any = MODELS[family]
    model = kind.build(config, spec)
    model.fit(train, valid, lambda line: print(f"[{rows.source}] {name}: {line}", flush=True))
    return model


def trees(name: str, spec: FeatureSpec, train: pa.Table, valid: pa.Table) -> GBDTRanker:
    """The trees of rung ``name``, fitted."""
    tasks, weights = list(TASKS), {}
    if name == V1:
        tasks = ["click"]
        weights = {k: w for k, w in WEIGHTS.items() if f"label_{k}" in train.column_names}
    config = {
        "tasks": tasks,
        **TREES,
        **({"sample_weights": {"click": weights}} if weights else {}),
    }
    of_trees = FeatureSpec(
        dense=spec.dense, sparse=tuple(c for c in spec.sparse if not c.name.endswith("_id")),
        labels=tuple(f"label_{label}" for label in (*tasks, *weights)),
    )  # fmt: skip
    model = GBDTRanker(GBDTConfig.from_dict(config), of_trees)
    model.fit(train, valid)
    return model


def milliseconds(model: Any, table: pa.Table) -> float:
    """The median time to score 500 candidates, from Arrow to scores."""
    candidates = table.slice(0, CANDIDATES)
    found = []
    for _ in range(21):
        began = time.perf_counter()
        model.score(candidates)
        found.append(time.perf_counter() - began)
    return float(np.median(found[1:]) * 1e3)


def curve_correlation(model: Any, curve: np.ndarray) -> float:
    """Between BiasNet's logits of a click, by position, and the logarithm of the true curve."""
    with torch.no_grad():
        places = torch.arange(1, len(curve) + 1)[:, None]
        found = model.module.bias(places)[:, model.tasks.index("click")].numpy()
    return float(np.corrcoef(found, curve)[0, 1])


def judged(
    name: str, model: Any, rows: Rows, seconds: float, trees: Mapping[str, np.ndarray]
) -> Iterator[tuple[dict[str, Any], str, np.ndarray]]:
    """One result a task, and the NDCG@10 of its groups."""
    predicted = model.predict(rows.test)
    for task in TASKS:
        column = rows.test[f"label_{task}"]
        mature = pc.is_valid(column)
        table = rows.test.filter(mature).select(["group_id"])
        labels = (pc.drop_null(column).to_numpy() > 0).astype(np.float64)
        scores = predicted.get(task, model.combine(predicted))[mature.to_numpy()]
        told = name != V1
        metrics = evaluate_ranking(labels, scores, table["group_id"], probabilities=told)
        by_group = ndcg_at_k(labels, scores, table["group_id"], 10).values
        base = trees.get(task, by_group)
        difference = paired_bootstrap(by_group - base, seed=7)
        line = {
            "bench": "ladder", "case": f"{rows.source}: {name}, {task}",
            "ours": round(metrics["ndcg_at_10"], 5), "peer": "gbdt", "peer_version": "same run",
            "theirs": round(float(np.nanmean(base)), 5), "unit": "ndcg_at_10",
            "ratio": round(metrics["ndcg_at_10"] / float(np.nanmean(base)), 4),
            "ours_peak_mb": None, "theirs_peak_mb": None,
            "quality": {
                "source": rows.source, "model": name, "task": task,
                **{key: round(metrics[key], 5) for key in ("auc", "gauc")},
                "log_loss": round(metrics["log_loss"], 5) if told else None,
                "difference": [round(float(value), 5) for value in difference],
                "groups": int(metrics["groups"]), "test_rows": len(labels),
                "parameters": getattr(model, "parameters", None),
                "train_seconds": round(seconds, 1),
                "score_500_ms": round(milliseconds(model, rows.test), 2),
            },
            "repetitions": 1, "cores": os.cpu_count(),
            "date": dt.datetime.now(dt.UTC).date().isoformat(),
        }  # fmt: skip
        if " + " in name and rows.curve is not None:
            line["quality"]["curve_correlation"] = round(curve_correlation(model, rows.curve), 4)
        yield line, task, by_group


def climb(rows: Rows, names: list[str]) -> Iterator[dict[str, Any]]:
    """Every rung on the rows of one source."""
    print(f"[{rows.source}] train {rows.train.num_rows:,} rows, test {rows.test.num_rows:,}")
    trees: dict[str, np.ndarray] = {}
    for name in names:
        began = time.monotonic()
        model = fitted(name, rows)
        seconds = time.monotonic() - began
        for line, task, by_group in judged(name, model, rows, seconds, trees):
            if name == "gbdt":
                trees[task] = by_group
            yield line


def picture(lines: list[dict[str, Any]]) -> Figure:
    """NDCG@10 minus that of the trees with its interval, a row a source, a panel a task."""
    panels = sorted({(r["quality"]["source"], r["quality"]["task"]) for r in lines})
    rows = len(panels) // len(TASKS)
    figure = Figure(figsize=(12, 3.5 * rows), layout="constrained")
    grid = figure.subplots(rows, len(TASKS), squeeze=False)
    for axes, (source, task) in zip(grid.flat, panels, strict=True):
        mine = [r["quality"] for r in lines
                if (r["quality"]["source"], r["quality"]["task"]) == (source, task)]  # fmt: skip
        mean, low, high = (np.array([q["difference"][i] for q in mine]) for i in range(3))
        place = np.arange(len(mine))[::-1]
        axes.errorbar(mean, place, xerr=[mean - low, high - mean], fmt="o", capsize=3)
        axes.axvline(0.0, color="grey", linestyle="--")
        axes.set(yticks=place, yticklabels=[q["model"] for q in mine],
                 title=f"{source}, {task}", xlabel="NDCG@10 minus the trees'")  # fmt: skip
    return figure


def beside_others(
    source: str, found: list[dict[str, Any]], every: list[str]
) -> Iterator[dict[str, Any]]:
    """``found`` in place of what is kept of the same models, in the order of the ladder."""
    kept = [line for line in kept_lines(RESULTS) if line["quality"]["source"] == source]
    lines = {line["case"]: line for line in [*kept, *found]}
    yield from sorted(lines.values(), key=lambda line: every.index(line["quality"]["model"]))


def main() -> int:
    parser = source_parser(__doc__, SOURCES)
    every = ["gbdt", V1, *(name for f in FAMILIES for name in (f, f"{f} + BiasNet"))]
    parser.add_argument("--models", nargs="+", choices=every, default=every, help="[all]")
    parser.add_argument(
        "--keep", action="store_true", help="keep these beside what was measured of the others"
    )
    given = parser.parse_args()
    names = [name for name in every if name in given.models]
    for source in sources_of(given, SOURCES):
        with held_out_day(source, given.data) as day:
            rows = stored(day)
            # Positions do not exist in KuaiRand: there is nothing for BiasNet to read.
            there = [n for n in names if " + " not in n or rows.curve is not None]
            found = climb(rows, there)
            if given.keep:
                found = beside_others(source, list(found), every)
            renewed(RESULTS, source, found, keep=given.keep or names == every)
    if given.keep or names == every:
        picture(kept_lines(RESULTS)).savefig(PICTURE, dpi=80)
    return 0


if __name__ == "__main__":
    sys.exit(main())
