"""What the page of a version of the trees shows, beside what every version has."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store import hours as hr
from feature_store.labels import label_column
from jobs.support.summary import progress
from models import FitReport, ModelError
from models.gbdt import GBDTRanker
from models.gbdt_contributions import contributions, spread_rows
from models.gbdt_plots import contributions_figure, importance_history_figure
from models.importance_drift import (
    IMPORTANCES_FILE,
    Shares,
    gain_shares,
    shares_from_text,
    shares_text,
    total_variation,
)
from models.plots import STOPPING_ROWS, standard_plots
from models.registry import Registry, Version

__all__ = ["Drift", "earlier_shares", "importance_drift", "tree_plots"]

_EXPLAINED_ROWS: Final = 2000
_HOURS_BACK: Final = 24
_LINES: Final = 8
_PLOTS: Final = "plots"
"""Where a run keeps what was registered as plots."""


@dataclass(frozen=True)
class Drift:
    """How far importances moved: numbers for the version's run, and files for its page."""

    metrics: Mapping[str, float]
    plots: Mapping[str, Any]


def tree_plots(model: GBDTRanker, report: FitReport, held: pa.Table) -> dict[str, Any]:
    """The standard plots, and what features add to the score of some of the rows ``held``, which
    stopped the fit."""
    predicted = model.predict(held)
    labels, probabilities = {}, {}
    for task in model.probabilities:
        column = held[label_column(task)]
        labels[task] = pc.drop_null(column).to_numpy()
        probabilities[task] = predicted[task][pc.is_valid(column).to_numpy()]
    rows = spread_rows(held, _EXPLAINED_ROWS)
    units = "contribution to the score" if model.config.ranks else "contribution to the log odds"
    title = f"{STOPPING_ROWS} ({rows.num_rows:,} of {held.num_rows:,})"
    return {
        **standard_plots(report, labels, probabilities),
        "feature_contributions": contributions_figure(contributions(model, rows), units, title),
    }


def importance_drift(
    job: str, registry: Registry, name: str, hour: str, report: FitReport
) -> Drift:
    """The importances of the model of ``hour`` beside those of the 24 hours before it.

    ``importance_drift_<task>`` is the total variation distance of the gain shares from those of the
    newest of these hours that has a version with the task; without one there is no such number.
    """
    shares = gain_shares(report.importances)
    by_hour = earlier_shares(job, registry, name, hour)
    metrics = {}
    for task, mine in shares.items():
        before = [past for past, known in by_hour.items() if task in known]
        if not before:
            progress(job, f"{task}: no earlier importances, so no importance_drift_{task}")
            continue
        drift = total_variation(by_hour[before[-1]][task], mine)
        metrics[f"importance_drift_{task}"] = drift
        progress(job, f"{task}: importances moved by {drift:.4f} since the model of {before[-1]}")
    plots: dict[str, Any] = {IMPORTANCES_FILE: shares_text(shares)}
    if metrics:
        hours = [*by_hour, hour]
        lines = {task: _lines(task, [*by_hour.values(), shares]) for task in shares}
        plots["feature_importance_by_hour"] = importance_history_figure(hours, lines)
    return Drift(metrics, plots)


def earlier_shares(job: str, registry: Registry, name: str, hour: str) -> dict[str, Shares]:
    """The gain shares of the versions of ``name`` of the 24 hours before ``hour``, oldest first: of
    an hour those of its newest version.

    Versions without readable importances are left out, and named in the log.
    """
    first = hr.add(hour, -_HOURS_BACK)
    newest: dict[str, Version] = {}
    for day in hr.days_of(first, hour):
        for version in registry.of_time(name, "run_hour", day):  # oldest first
            of = version.tags["run_hour"]
            if first <= of < hour:
                newest[of] = version
    hours, found = sorted(newest), {}
    texts = registry.run_texts([newest[of] for of in hours], f"{_PLOTS}/{IMPORTANCES_FILE}")
    for of, text in zip(hours, texts, strict=True):
        try:
            if text is None:
                raise ModelError(f"it has no {IMPORTANCES_FILE}")
            found[of] = shares_from_text(text)
        except ModelError as error:
            version = newest[of].version
            progress(job, f"importances of version {version}, {of}, left out: {error}")
    return found


def _lines(task: str, by_hour: list[Shares]) -> dict[str, Any]:
    """Shares by hour (H,) of the columns with the largest mean, the largest first; NaN in hours
    whose model has no such task, 0 in those that did not read the column."""
    known = [shares.get(task) for shares in by_hour]
    names = sorted({name for shares in known for name in shares or ()})
    lines = {
        name: np.array([np.nan if s is None else s.get(name, 0.0) for s in known]) for name in names
    }
    best = sorted(names, key=lambda name: (-float(np.nanmean(lines[name])), name))
    return {name: lines[name] for name in best[:_LINES]}
