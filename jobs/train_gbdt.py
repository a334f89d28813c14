"""Train the hour's LightGBM ranker on the samples of the hours before it, and register it."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
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
from jobs.support.streams import Stream
from jobs.support.summary import Summary, main_of, progress, skipped
from jobs.support.training import Fitted, keep_snapshots, parted, reading_guard, register
from jobs.support.version_plots import importance_drift, tree_plots
from jobs.support.warm import warm_start, warmed_from
from models import FitReport
from models.gbdt import GBDTConfig, GBDTRanker
from models.registry import Registry, Version
from models.spilled_rows import SpilledRows

__all__ = ["build_parser", "main", "run", "train"]

JOB = "train_gbdt"
HELD_CELLS: Final = 2**30
"""Rows times features that are held in memory as a table, 4 bytes each; of more, the rows to fit on
go through a file. Both ways make the same trees."""
Prepared = tuple[Provenance, pa.Table, Callable[[], FitReport]]
"""What the training set is, its rows that stop the fit early, and what grows the trees."""
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
            store, settings, registry, chosen, champion, source, writer, summary, dry, watch
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
    store: Store, settings: Settings, registry: Registry, chosen: Plan,
    champion: GBDTRanker | None, source: Source, writer: Writer, summary: Summary, dry: bool,
    watch: Stopwatch,
) -> Version | None:  # fmt: skip
    model, recipe = _model(chosen), chosen.recipe(source)
    spilled = model.reads_spilled(champion) and _cells(store, chosen) > HELD_CELLS
    if spilled:
        folder = settings.scratch()
        training, held, grow = _prepared_on_disk(store, recipe, chosen.tasks, model, folder, watch)
    else:
        training, held, grow = _prepared(store, recipe, chosen.tasks, model, champion, watch)
    summary.rows_in, summary.rows_out = training.rows, training.rows - held.num_rows
    # What lies under the bins is gone by now; Arrow would keep the memory for tables to come.
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


def _cells(store: Store, chosen: Plan) -> int:
    """Rows times features of the training set."""
    hours = chosen.lineage.hours
    complete = store.ledger.completions("samples", hours[0], hours[-1])
    return sum(complete[hour].rows for hour in hours) * len(chosen.spec.columns)


def _prepared(
    store: Store, recipe: Recipe, tasks: tuple[str, ...], model: GBDTRanker,
    champion: GBDTRanker | None, watch: Stopwatch,
) -> Prepared:  # fmt: skip
    """The training set as a table in memory, binned."""
    table = build(store, recipe)
    watch.lap("read_and_label")
    training = Provenance.of(recipe, table, tasks)
    watch.lap("digest")
    columns, schema = dict(zip(table.column_names, table.columns, strict=True)), table.schema
    del table
    rows, held = parted(columns, schema)
    watch.lap("split")
    _say_rows(rows.num_rows, held.num_rows)
    return training, held, model.prepared(rows, held, _say, champion)


def _prepared_on_disk(
    store: Store, recipe: Recipe, tasks: tuple[str, ...], model: GBDTRanker, folder: Path,
    watch: Stopwatch,
) -> Prepared:  # fmt: skip
    """As :func:`_prepared`, of rows that pass through memory. Until they are binned, those to fit
    on are in a file without a name, which goes with the process however that ends."""
    stream = Stream(store, recipe, tasks)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        rows = SpilledRows(model.matrix, file)
        held = stream.parted(rows)
        training = stream.provenance()
        watch.lap("read_and_spill")
        _say_rows(rows.num_rows, held.num_rows)
        return training, held, model.prepared(rows, held, _say)


def _say_rows(fitted: int, stopping: int) -> None:
    _say(f"fitting on {fitted:,} rows, stopping early on {stopping:,}")


def _say(message: str) -> None:
    progress(JOB, message)


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
