"""V1 taken apart: which features, which sample weights and which objective earn their place.

    python benchmarks/gbdt_ablation.py --data ../shared/data          # both sources
    python benchmarks/gbdt_ablation.py --source kuairand --parts weights

Every variant is fitted on the same rows with the settings of conf/, and ranks the same day that
none has seen. The base is one pointwise booster for clicks on every feature. Its variants leave out
a group of features; weigh the samples by orders and stay; or learn another objective. Each is
judged by NDCG@10 of clicks, long views, orders (where there are any) and of stay, of which a row's
gain is log(1 + seconds), and by the AUC of clicks. Differences to the base have 95 % bootstrap
intervals over ranking groups.

KuaiRand: fitted on 25 to 30 April 2022, told 1 May (UTC+8). The simulated market: two days and the
third; a fourth lets its orders ripen.
"""

from __future__ import annotations

import datetime as dt
import os
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # benchmarks are not installed

from benchmarks.by_source import kept_lines, renewed, source_parser, sources_of  # noqa: E402
from benchmarks.held_out_day import SOURCES, HeldOutDay, held_out_day  # noqa: E402
from benchmarks.intervals import auc_interval  # noqa: E402
from feature_store.services import SERVICES, FeatureService  # noqa: E402
from feature_store.views import VIEWS, window_name  # noqa: E402
from jobs.support.deep_features import POSITION  # noqa: E402
from jobs.support.training import split  # noqa: E402
from models import FeatureSpec, SparseColumn  # noqa: E402
from models.gbdt import GBDTConfig, GBDTRanker  # noqa: E402
from models.metrics import auc, group_codes, ndcg_at_k, paired_bootstrap  # noqa: E402

RESULTS: Final = ROOT / "benchmarks" / "results" / "gbdt_ablation.jsonl"
PICTURE: Final = ROOT / "docs" / "pictures" / "gbdt_ablation.png"
BASE: Final = "clicks, pointwise, every feature"
FEATURES, WEIGHTS, OBJECTIVES = "features", "weights", "objective"
PARTS: Final = (FEATURES, WEIGHTS, OBJECTIVES)
LABELS: Final = ("click", "long_view", "conversion", "stay")
ALL: Final = SERVICES["ranking"]
SHORT, DAY, LONG = ("30m", "1h"), ("24h",), ("3d", "7d", "15d")


@dataclass(frozen=True)
class Variant:
    """One change to the base; ``labels`` are those that it needs beside clicks."""

    part: str
    name: str
    service: FeatureService = ALL
    config: Mapping[str, Any] = field(default_factory=dict)
    labels: tuple[str, ...] = ()


def _without(name: str, *prefixes: str, attributes: tuple[str, ...] = ()) -> Variant:
    views = tuple(v.name for v in VIEWS if v.name not in prefixes)
    kept = tuple(entity for entity in ALL.attributes if entity not in attributes)
    return Variant(FEATURES, f"without {name}", replace(ALL, views=views, attributes=kept))


def _windows(name: str, *kept: str) -> Variant:
    known = {window_name(w) for view in VIEWS for w in view.windows}
    assert set(kept) <= known, f"no windows {set(kept) - known}"
    return Variant(FEATURES, f"without {name}", replace(ALL, windows=kept))


_CROSS: Final = tuple(view.name for view in VIEWS if len(view.keys) > 1)
_ORDERS: Final = {"click": 1.0, "conversion": 10.0}
_STAY: Final = {"click": 1.0, "stay": {"log": 0.5}}
_GRADES: Final = {"click": 1, "long_view": 2, "conversion": 3}


def variants(source: str) -> tuple[Variant, ...]:
    """The variants that a source has the labels and positions for."""
    several = tuple(label for label in LABELS[:3] if source == "simulator" or label != "conversion")
    graded = {"tasks": several, "grades": {task: _GRADES[task] for task in several}}
    found = (
        _without("users", "user", attributes=("user",)),
        _without("items and shops", "item", "shop", attributes=("item",)),
        _without("rooms and hosts", "room", "host", attributes=("room",)),
        _without("categories, scenes, queries", "category", "scene", "query"),
        _without("crosses", *_CROSS),
        _windows("windows below a day", *DAY, *LONG),
        _windows("windows above a day", *SHORT, *DAY),
        Variant(WEIGHTS, "orders weigh 10", config={"sample_weights": {"click": _ORDERS}},
                labels=("conversion",)),
        Variant(WEIGHTS, "log of stay weighs 0.5", config={"sample_weights": {"click": _STAY}},
                labels=("stay",)),
        Variant(WEIGHTS, "orders and stay", labels=("conversion", "stay"),
                config={"sample_weights": {"click": {**_ORDERS, **_STAY}}}),
        Variant(OBJECTIVES, "boosters summed", labels=several[1:],
                config={"tasks": several, "weights": dict.fromkeys(several, 1.0)}),
        Variant(OBJECTIVES, "lambdarank, clicks", config={"objective": "lambdarank"}),
        Variant(OBJECTIVES, "rank_xendcg, clicks", config={"objective": "rank_xendcg"}),
        Variant(OBJECTIVES, "lambdarank, graded", config={"objective": "lambdarank", **graded},
                labels=several[1:]),
        Variant(OBJECTIVES, "lambdarank, clicks, debiased",
                config={"objective": "lambdarank", "debias": "position"}),
    )  # fmt: skip
    there = set(LABELS) if source == "simulator" else set(LABELS) - {"conversion"}
    usable = (v for v in found if set(v.labels) <= there)
    return tuple(v for v in usable if source == "simulator" or v.config.get("debias") != "position")


def fitted(day: HeldOutDay, rows: pa.Table, variant: Variant) -> GBDTRanker:
    """The ranker of a variant, stopped early on 10 % of the groups."""
    settings = {**day.settings.train.gbdt, "tasks": ["click"], "weights": {}, **variant.config}
    config, service = GBDTConfig.from_dict(settings), variant.service
    spec = FeatureSpec(
        dense=service.dense(),
        sparse=tuple(SparseColumn(name, buckets) for name, buckets in service.sparse()),
        labels=tuple(f"label_{task}" for task in config.tasks),
        training_only=(POSITION,) if config.debias == "position" else (),
    )
    model = GBDTRanker(config, spec)
    model.fit(*split(rows))
    return model


def by_group(rows: pa.Table, scores: np.ndarray) -> dict[str, np.ndarray]:
    """NDCG@10 of every group by label; a group that has an immature row of it is left out."""
    found = {}
    for label in LABELS:
        if f"label_{label}" not in rows.column_names:
            continue
        values = rows[f"label_{label}"]
        mature = pc.is_valid(values)
        gains = np.maximum(pc.fill_null(values, 0).to_numpy(), 0)
        gains = np.log1p(gains) if label == "stay" else (gains > 0).astype(np.float64)
        ndcg = ndcg_at_k(gains, scores, rows["group_id"], 10).values
        open_rows = (~mature.to_numpy()).astype(np.float64)
        spoiled = _sums(rows["group_id"], open_rows) > 0
        found[label] = np.where(spoiled, np.nan, ndcg)
    return found


def _sums(groups: pa.ChunkedArray, values: np.ndarray) -> np.ndarray:
    codes = groups.combine_chunks().dictionary_encode().indices.to_numpy()
    return np.bincount(codes, weights=values)


def lines(
    day: HeldOutDay, rows: pa.Table, told: pa.Table, wanted: list[str]
) -> Iterator[dict[str, Any]]:
    """A line for every variant and label, the base first."""
    print(f"[{day.source}] fitted on {rows.num_rows:,} rows, told {told.num_rows:,}", flush=True)
    base: dict[str, np.ndarray] = {}
    mature = pc.is_valid(told["label_click"])
    clicked = pc.drop_null(told["label_click"]).to_numpy()
    groups = np.asarray(group_codes(told["group_id"].filter(mature)))
    for variant in (Variant("base", BASE), *variants(day.source)):
        if variant.part != "base" and variant.part not in wanted:
            continue
        began = time.monotonic()
        model = fitted(day, rows, variant)
        seconds = time.monotonic() - began
        scores = model.score(told)
        ndcg = by_group(told, scores)
        of_clicks = scores[mature.to_numpy()]
        if not base:
            base, base_clicks = ndcg, of_clicks
        apart_auc = auc_interval(clicked, of_clicks, base_clicks, groups, seed=7)
        for label, values in ndcg.items():
            apart = paired_bootstrap(values - base[label], seed=7)
            ours, theirs = float(np.nanmean(values)), float(np.nanmean(base[label]))
            yield {
                "bench": "gbdt_ablation", "case": f"{day.source}: {variant.name}, {label}",
                "ours": round(ours, 5), "peer": BASE, "peer_version": "same run",
                "theirs": round(theirs, 5), "unit": "ndcg_at_10", "ratio": round(ours / theirs, 4),
                "ours_peak_mb": None, "theirs_peak_mb": None,
                "quality": {
                    "source": day.source, "part": variant.part, "variant": variant.name,
                    "label": label, "difference": [round(float(v), 5) for v in apart],
                    "groups": int(np.isfinite(values).sum()),
                    "click_auc": round(auc(clicked, of_clicks), 5),
                    "click_auc_difference": [round(v, 5) for v in apart_auc],
                    "features": len(model.spec.columns), "train_seconds": round(seconds, 1),
                },
                "repetitions": 1, "cores": os.cpu_count(),
                "date": dt.datetime.now(dt.UTC).date().isoformat(),
            }  # fmt: skip


def picture(kept: list[dict[str, Any]]) -> Figure:
    """NDCG@10 minus the base's with its interval: a row a source, a panel a label."""
    sources = sorted({line["quality"]["source"] for line in kept})
    figure = Figure(figsize=(16, 5 * len(sources)), layout="constrained")
    grid = figure.subplots(len(sources), len(LABELS), squeeze=False, sharey="row")
    for row, source in zip(grid, sources, strict=True):
        for axes, label in zip(row, LABELS, strict=True):
            told = [q for q in (line["quality"] for line in kept) if q["part"] != "base"]
            mine = [q for q in told if (q["source"], q["label"]) == (source, label)]
            if not mine:
                axes.set_visible(False)
                continue
            mean, low, high = (np.array([q["difference"][i] for q in mine]) for i in range(3))
            place = np.arange(len(mine))[::-1]
            axes.errorbar(mean, place, xerr=[mean - low, high - mean], fmt="o", capsize=3)
            axes.axvline(0.0, color="grey", linestyle="--")
            axes.set(yticks=place, yticklabels=[q["variant"] for q in mine],
                     title=f"{source}, {label}", xlabel="NDCG@10 minus the base's")  # fmt: skip
    return figure


def main() -> int:
    parser = source_parser(__doc__, SOURCES)
    parser.add_argument(
        "--parts", nargs="+", choices=PARTS, default=list(PARTS),
        help="only these; nothing is kept then [all]",
    )  # fmt: skip
    given = parser.parse_args()
    whole = set(given.parts) == set(PARTS)
    for source in sources_of(given, SOURCES):
        with held_out_day(source, given.data, ripening_days=1) as day:
            rows, told = day.fitted_on(), day.told_rows()
        renewed(RESULTS, source, lines(day, rows, told, given.parts), keep=whole)
    if whole:
        picture(kept_lines(RESULTS)).savefig(PICTURE, dpi=80)
    return 0


if __name__ == "__main__":
    sys.exit(main())
