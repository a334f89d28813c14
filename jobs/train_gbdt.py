"""Train the hour's LightGBM ranker on the samples of the hours before it, and register it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Final

import pyarrow as pa

from feature_store.sources.base import Source
from feature_store.tables import Store, Writer
from feature_store.training_set import Recipe, build
from jobs.support.arguments import job_parser, run_hours
from jobs.support.fencing import claim, run_token
from jobs.support.plans import DEFAULT_NAME, MIN_HOURS, Plan, gbdt_plan
from jobs.support.provenance import Provenance
from jobs.support.settings import Settings, SettingsError, load_settings
from jobs.support.stopwatch import STEPS, Stopwatch
from jobs.support.summary import Summary, main_of, progress, skipped
from jobs.support.training import Fitted, keep_snapshots, parted, reading_guard, register
from jobs.support.version_plots import importance_drift, tree_plots
from jobs.support.warm import warm_start, warmed_from
from models.gbdt import GBDTConfig, GBDTRanker
from models.registry import Registry, Version

__all__ = ["build_parser", "main", "run", "train"]

JOB = "train_gbdt"
_HOW: Final = {"continue": "continued", "refit": "with leaf values refitted"}


def _description(chosen: Plan, model: GBDTRanker, rows: int) -> str:
    how = "fitted"
    if chosen.warm is not None:
        how = f"champion version {chosen.warm} {_HOW[model.config.way]}"
    return (
        f"LightGBM ranker of hour {chosen.hour}: tasks {', '.join(chosen.tasks)}, {how} "
        f"on {rows:,} impressions of {chosen.lineage.hours[0]} to "
        f"{chosen.lineage.hours[-1]} with labels known before {chosen.hour}; "
        f"{len(chosen.spec.columns)} features."
    )


def train(store: Store, settings: Settings, name: str, hour: str, token: str, dry: bool) -> Summary:
    """Fit and register the model of ``hour``; a model of the same run key is left as it is.

    Where the configuration's ``way`` is to continue or to refit, it goes on from the champion of
    the moment before ``hour``; without one that fits it is fitted anew, and the log says why.

    Raises:
        TrainingRefused: too few positives, one class only, NaN loss; nothing is registered.
    """
    watch = Stopwatch()
    writer = claim(store, f"{JOB}:{name}", [hour], token)
    source = settings.open_source()
    chosen = gbdt_plan(store, settings, name, hour)
    summary = Summary(JOB, [hour])
    if not chosen.complete:
        return skipped(summary, chosen.shortage())
    registry = Registry(settings.tracking())
    known = registry.find(name, chosen.run_key)
    champion = None
    if known is None and _model(chosen).config.way != "retrain":
        why = f"{name} has no champion yet"
        chosen, champion = warm_start(JOB, registry, chosen, _model, why)
        known = registry.find(name, chosen.run_key)
    watch.lap("plan")
    if known is None:
        known = _fit_and_register(
            store, registry, chosen, champion, source, writer, summary, dry, watch
        )
    else:
        summary.status, summary.message = "unchanged", f"{name} version {known.version} is this run"
    summary.snapshots = dict(chosen.lineage.snapshots)
    if known is not None:
        summary.model = {"name": name, "version": known.version}
        summary.mlflow_run_url = registry.run_url(known.run_id)
    summary.details = {**summary.details, STEPS: watch.seconds}
    progress(JOB, summary.message)
    return summary


def _model(chosen: Plan) -> GBDTRanker:
    return GBDTRanker(GBDTConfig.from_dict(chosen.config), chosen.spec)


def _fit_and_register(
    store: Store, registry: Registry, chosen: Plan, champion: GBDTRanker | None, source: Source,
    writer: Writer, summary: Summary, dry: bool, watch: Stopwatch,
) -> Version | None:  # fmt: skip
    training, rows, held = _read(store, chosen.recipe(source), chosen.tasks, watch)
    summary.rows_in, summary.rows_out = training.rows, rows.num_rows
    progress(JOB, f"fitting on {rows.num_rows:,} rows, stopping early on {held.num_rows:,}")
    model = _model(chosen)
    watch.lap("split")
    grow = model.prepared(rows, held, lambda message: progress(JOB, message), champion)
    del rows  # their bins are there now; Arrow would keep the memory for tables to come
    pa.default_memory_pool().release_unused()
    report = grow()
    watch.lap("fit")
    summary.details = {
        "rounds": dict(report.rounds),
        "warmed_from": chosen.warm,
        "immature": dict(report.immature),
        "censored": training.by_hour(),
        "missing": {name: round(share, 4) for name, share in training.missing.items()},
        "training_set_sha": training.sha256,
    }
    if dry:
        summary.status, summary.message = "dry-run", "fitted; nothing registered"
        return None
    keep_snapshots(store, chosen)
    drift = importance_drift(JOB, registry, chosen.name, chosen.hour, report)
    plots, words = tree_plots(model, report, held), _description(chosen, model, summary.rows_out)
    watch.lap("plots")
    fitted = Fitted(
        model, report, training, held, {**plots, **drift.plots}, words, warmed_from(chosen),
        drift.metrics,
    )  # fmt: skip
    version = register(registry, chosen, fitted, reading_guard(store, chosen, writer))
    watch.lap("register")
    summary.message = f"registered {chosen.name} version {version.version}"
    return version


def _read(
    store: Store, recipe: Recipe, tasks: tuple[str, ...], watch: Stopwatch
) -> tuple[Provenance, pa.Table, pa.Table]:
    """What the training set is, its rows to fit on, and those to stop early on."""
    table = build(store, recipe)
    watch.lap("read_and_label")
    training = Provenance.of(recipe, table, tasks)
    watch.lap("digest")
    columns, schema = dict(zip(table.column_names, table.columns, strict=True)), table.schema
    del table
    return training, *parted(columns, schema)


def run(arguments: argparse.Namespace) -> Summary:
    settings = load_settings(arguments)
    hours = run_hours(arguments, settings.open_source().time_zone)
    store = settings.open_store()
    token = run_token(arguments.run_id)
    if len(hours) != 1:
        raise SettingsError(f"{JOB} trains the model of one --hour, got {len(hours)} hours")
    return train(store, settings, arguments.name, hours[0], token, arguments.dry_run)


def build_parser() -> argparse.ArgumentParser:
    parser = job_parser(
        JOB,
        "Fit LightGBM on [H - span, H) with the labels known at H, anew or from the champion, and "
        "register it in MLflow. "
        f"With fewer than {MIN_HOURS} complete hours it says `skipped` and exits 0.",
        "  train_gbdt.py --hour 2026-11-11T05\n"
        "  train_gbdt.py --hour 2026-11-11T05 --config conf/kuairand.yaml --dry-run\n",
    )
    parser.add_argument("--name", default=DEFAULT_NAME, help="registered name [%(default)s]")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    return main_of(JOB, build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
