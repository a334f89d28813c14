"""Pre-training of a deep ranker: the days before a day in, one registered version out.

A killed run leaves its checkpoints in a folder of its run key, and the next run of the same key
goes on from there; a registered one leaves nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from feature_store.labels import LABELS, label_column
from feature_store.tables import Store, Writer
from jobs.support.arguments import job_parser, run_hours
from jobs.support.fencing import claim, run_token
from jobs.support.plans import (
    DEEP_FAMILIES,
    MIN_HOURS,
    Plan,
    pretraining_plan,
    registered_name,
)
from jobs.support.settings import Settings, SettingsError, load_settings
from jobs.support.stages import require_hours
from jobs.support.streams import Stream
from jobs.support.summary import Summary, progress, skipped
from jobs.support.training import Fitted, keep_snapshots, reading_guard, register
from jobs.support.warm import warm_start, warmed_from
from models import MODELS, FitReport
from models.plots import STOPPING_ROWS, learning_curve_figure, reliability_figure
from models.registry import Registry, Version

__all__ = ["CHECKPOINTS", "checkpoint_folder", "pretrain", "pretraining_parser", "run_pretraining"]

CHECKPOINTS: Final = "checkpoints"
"""Of the scratch folder: where interrupted runs are."""


def pretrain(
    job: str, store: Store, settings: Settings, family: str, hour: str, token: str, dry: bool,
    from_scratch: bool = False,
) -> Summary:  # fmt: skip
    """Fit and register the deep ranker of the day that starts with ``hour``.

    A version of the same run key is left as it is.

    Raises:
        TrainingRefused: too few positives, one class only, NaN loss; nothing is registered.
    """
    name = registered_name(family)
    writer = claim(store, f"pretrain:{name}", [hour], token)
    source = settings.open_source()
    chosen = pretraining_plan(store, settings, family, hour, from_scratch)
    summary = Summary(job, [hour])
    if not chosen.complete:
        return skipped(summary, chosen.shortage())
    recipe = chosen.recipe(source)
    for view in chosen.service.sequence_views():
        require_hours(store, view.table, chosen.lineage.hours, "build_samples")
    registry = Registry(settings.tracking())
    known = registry.find(name, chosen.run_key)
    champion = None
    if known is None:
        why = "as was asked" if from_scratch else f"{name} has no champion yet"
        chosen, champion = warm_start(job, registry, chosen, _fresh, why)
        known = registry.find(name, chosen.run_key)
    if known is not None:
        summary.status, summary.message = "unchanged", f"{name} version {known.version} is this run"
    else:
        stream = Stream(store, recipe, chosen.tasks)
        folder = None if dry else checkpoint_folder(settings, chosen)
        known = _fitted(store, registry, chosen, stream, champion, folder, writer, summary)
    summary.snapshots = dict(chosen.lineage.snapshots)
    if known is not None:
        summary.model = {"name": name, "version": known.version}
        summary.mlflow_run_url = registry.run_url(known.run_id)
    progress(job, summary.message)
    return summary


def checkpoint_folder(settings: Settings, chosen: Plan) -> Path:
    """Where a run of ``chosen`` keeps what a killed one goes on from."""
    key = hashlib.sha256(chosen.run_key.encode()).hexdigest()
    return settings.scratch() / CHECKPOINTS / key


def _fresh(chosen: Plan) -> Any:
    kind: Any = MODELS[chosen.family]
    return kind.build(chosen.config, chosen.spec)


def _fitted(
    store: Store, registry: Registry, chosen: Plan, stream: Stream, champion: Any | None,
    folder: Path | None, writer: Writer, summary: Summary,
) -> Version | None:  # fmt: skip
    """Fit, and register unless there is no ``folder`` to keep checkpoints in (a dry run)."""
    model = _fresh(chosen)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)

    def said(message: str) -> None:
        progress(summary.job, message)

    report: FitReport = model.fit_batches(stream.rows, stream.held, said, folder, champion)
    training = stream.provenance()
    summary.rows_in, summary.rows_out = training.rows, max(report.rows.values(), default=0)
    summary.details = {
        "rounds": dict(report.rounds),
        "immature": dict(report.immature),
        "censored": training.by_hour(),
        "missing": {name: round(share, 4) for name, share in training.missing.items()},
        "training_set_sha": training.sha256,
        "warmed_from": chosen.warm,
    }
    if folder is None:
        summary.status, summary.message = "dry-run", "fitted; nothing registered"
        return None
    keep_snapshots(store, chosen)
    example = stream.examples()
    fitted = Fitted(
        model, report, training, example, _plots(model, report, example),
        _description(chosen, training.rows), warmed_from(chosen),
    )  # fmt: skip
    version = register(registry, chosen, fitted, reading_guard(store, chosen, writer))
    shutil.rmtree(folder, ignore_errors=True)
    summary.message = f"registered {chosen.name} version {version.version}"
    return version


def _plots(model: Any, report: FitReport, rows: pa.Table) -> dict[str, Any]:
    """Learning curves, and how reliable probabilities are on ``rows``, which were held out."""
    predicted = model.predict(rows)
    labels, probabilities = {}, {}
    for task, values in predicted.items():
        column = rows[label_column(task)]
        if LABELS[task].summed or column.null_count == len(column):
            continue
        labels[task] = pc.drop_null(column).to_numpy()
        probabilities[task] = values[pc.is_valid(column).to_numpy()]
    plots = {"learning_curve": learning_curve_figure(report)}
    if labels:
        plots["reliability"] = reliability_figure(labels, probabilities, STOPPING_ROWS)
    return plots


def _description(chosen: Plan, rows: int) -> str:
    start = f"champion version {chosen.warm}" if chosen.warm else "scratch"
    return (
        f"{chosen.family} ranker of {chosen.hour}: tasks {', '.join(chosen.tasks)}, pre-trained "
        f"from {start} on {rows:,} impressions of {chosen.lineage.hours[0]} to "
        f"{chosen.lineage.hours[-1]} with labels known before {chosen.hour}; "
        f"{len(chosen.spec.columns)} features."
    )


def run_pretraining(job: str, arguments: argparse.Namespace) -> Summary:
    """``run`` of a pre-training job."""
    settings = load_settings(arguments)
    hours = run_hours(arguments, settings.open_source().time_zone)
    if arguments.date is None and len(hours) != 1:
        raise SettingsError(f"{job} trains the model of one --date, got {len(hours)} hours")
    store, token = settings.open_store(), run_token(arguments.run_id)
    return pretrain(
        job, store, settings, arguments.model, hours[0], token, arguments.dry_run,
        arguments.from_scratch,
    )  # fmt: skip


def pretraining_parser(
    job: str, family: str, what: str, families: Sequence[str] = DEEP_FAMILIES
) -> argparse.ArgumentParser:
    """``build_parser`` of a pre-training job; ``what`` says what it pre-trains."""
    parser = job_parser(
        job,
        f"Pre-train {what} on the days before --date (or before --hour) with the labels known at "
        "its start, from the champion where that fits, and register it in MLflow. With fewer than "
        f"{MIN_HOURS} complete hours it says `skipped` and exits 0. A killed run is resumed by the "
        "same command.",
        f"  {job}.py --date 2026-11-11\n  {job}.py --date 2026-11-11 --from-scratch --dry-run\n",
    )
    parser.add_argument(
        "--model", choices=families, default=family,
        help="family to train, registered under its own name [%(default)s]",
    )  # fmt: skip
    parser.add_argument(
        "--from-scratch", action="store_true", help="do not start from the champion's weights"
    )
    return parser
