"""Train the hour's LightGBM ranker on the samples of the hours before it, and register it."""

from __future__ import annotations

import argparse
import hashlib
import importlib.metadata
import json
import sys
import tempfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store import hours as hr
from feature_store.services import FeatureService, ServiceError, feature_service
from feature_store.sources.base import Source
from feature_store.tables import Store
from feature_store.training_set import Lineage, Recipe, build, lineage
from jobs.support.arguments import job_parser, run_hours
from jobs.support.fencing import claim, run_token
from jobs.support.provenance import Provenance
from jobs.support.settings import Settings, SettingsError, TrainSettings, load_settings
from jobs.support.snapshot_tags import snapshot_tag
from jobs.support.summary import Summary, main_of, progress
from models import FeatureSpec, FitReport, GBDTConfig, GBDTRanker, SparseColumn
from models.base import ConfigError
from models.plots import standard_plots
from models.registry import Registry, Version

__all__ = ["MIN_HOURS", "Plan", "build_parser", "main", "plan", "run", "split", "train"]

JOB = "train_gbdt"
DEFAULT_NAME: Final = "gbdt_ranker"
MIN_HOURS: Final = 24
"""With fewer complete hours nothing is trained, evaluated or promoted."""

_VALID_SHARE: Final = 10
"""One group in so many, by the hash of its id, is kept for early stopping."""


@dataclass(frozen=True)
class Plan:
    """What the model of an hour is fitted on, known from the catalog before any row is read."""

    name: str
    hour: str
    first: str
    service: FeatureService
    lineage: Lineage
    config: GBDTConfig
    spec: FeatureSpec

    @property
    def run_key(self) -> str:
        """Name, hour, configuration and content of the hours read: the same key, the same model."""
        config = json.dumps({"config": self.config.__dict__, "spec": self.spec.sha},
                            default=dict, sort_keys=True)  # fmt: skip
        sha = hashlib.sha256(config.encode()).hexdigest()
        return f"{self.name}|{self.hour}|{sha[:12]}|{self.lineage.content_sha[:12]}"

    @property
    def complete(self) -> bool:
        """Whether enough hours are there to train at all."""
        return len(self.lineage.hours) >= MIN_HOURS

    def shortage(self) -> str:
        """Why nothing is trained, for the summary."""
        return (
            f"{len(self.lineage.hours)} complete hours before {self.hour}; "
            f"{MIN_HOURS} are needed to train, evaluate and promote"
        )


def plan(store: Store, settings: TrainSettings, name: str, hour: str) -> Plan:
    """The training run of ``hour``: [hour - span, hour), cut at the start of ``hour``.

    Raises:
        SettingsError: for a configuration that GBDTConfig refuses, or an unknown feature service.
    """
    try:
        config = GBDTConfig.from_dict(dict(settings.gbdt))
    except ConfigError as error:
        raise SettingsError(f"configuration train.gbdt: {error}") from error
    try:
        service = feature_service(settings.feature_service)
    except ServiceError as error:
        raise SettingsError(f"configuration train.feature_service: {error}") from error
    spec = FeatureSpec(
        dense=service.dense(),
        sparse=tuple(SparseColumn(column, buckets) for column, buckets in service.sparse()),
        labels=tuple(f"label_{task}" for task in config.tasks),
    )
    first = hr.add(hour, -settings.span_hours)
    origin = lineage(store, first, hr.add(hour, -1), hour)
    return Plan(name, hour, first, service, origin, config, spec)


def split(table: pa.Table) -> tuple[pa.Table, pa.Table]:
    """Rows to fit on, and whole groups (10 % by the hash of the group's id) to stop early on."""
    encoded = table["group_id"].combine_chunks().dictionary_encode()
    held = [zlib.crc32(g.encode()) % _VALID_SHARE == 0 for g in encoded.dictionary.to_pylist()]
    mask = pa.array(np.array(held, dtype=bool)[encoded.indices.to_numpy()])
    return table.filter(pc.invert(mask)), table.filter(mask)


def _plots(model: GBDTRanker, report: FitReport, valid: pa.Table) -> dict[str, Any]:
    predicted = model.predict(valid)
    labels, probabilities = {}, {}
    for task, scores in predicted.items():
        column = valid[f"label_{task}"]
        mature = pc.is_valid(column).to_numpy()
        labels[task] = pc.drop_null(column).to_numpy()
        probabilities[task] = scores[mature]
    return dict(standard_plots(report, labels, probabilities))


def _description(chosen: Plan, train: pa.Table) -> str:
    return (
        f"LightGBM ranker of hour {chosen.hour}: tasks {', '.join(chosen.config.tasks)}, fitted "
        f"on {train.num_rows:,} impressions of {chosen.lineage.hours[0]} to "
        f"{chosen.lineage.hours[-1]} with labels known before {chosen.hour}; "
        f"{len(chosen.spec.columns)} features."
    )


def _register(
    registry: Registry, chosen: Plan, model: GBDTRanker, report: FitReport, train: pa.Table,
    valid: pa.Table, training: Provenance, guard: Any,
) -> Version:  # fmt: skip
    hours = chosen.lineage.hours
    with tempfile.TemporaryDirectory(prefix="rankmill-") as scratch:
        folder = Path(scratch) / "model"
        model.save(folder)
        return registry.register(
            chosen.name,
            chosen.run_key,
            folder,
            chosen.spec,
            metrics={**report.metrics(), **training.metrics()},
            params={"family": "gbdt", **model.config_dict()},
            tags={
                "code_version": importlib.metadata.version("rankmill"),
                "run_hour": chosen.hour,
                "feature_service": chosen.service.name,
                "training_set_sha": training.sha256,
            },
            input_example=valid.slice(0, 5).select(list(chosen.spec.columns)),
            plots={**_plots(model, report, valid), "censored_labels": training.figure()},
            description=_description(chosen, train),
            guard=guard,
            handoff={
                "data_hour": hours[-1],
                "trained_hours": [hours[0], hours[-1]],
                "iceberg_snapshots": dict(chosen.lineage.snapshots),
                "cut": chosen.hour,
                "content_sha": chosen.lineage.content_sha,
                "training_set": training.handoff(),
            },
        )


def train(store: Store, settings: Settings, name: str, hour: str, token: str, dry: bool) -> Summary:
    """Fit and register the model of ``hour``; a model of the same run key is left as it is.

    Raises:
        TrainingRefused: too few positives, one class only, NaN loss; nothing is registered.
    """
    writer = claim(store, f"{JOB}:{name}", [hour], token)
    source = settings.open_source()
    chosen = plan(store, settings.train, name, hour)
    summary = Summary(JOB, [hour])
    if not chosen.complete:
        summary.status, summary.message = "skipped", chosen.shortage()
        progress(JOB, f"skipped: {summary.message}")
        return summary
    registry = Registry(settings.tracking())
    known = registry.find(name, chosen.run_key)
    if known is None:
        known = _fit_and_register(store, registry, chosen, source, writer, summary, dry)
    else:
        summary.status, summary.message = "unchanged", f"{name} version {known.version} is this run"
    summary.snapshots = dict(chosen.lineage.snapshots)
    if known is not None:
        summary.model = {"name": name, "version": known.version}
        summary.mlflow_run_url = registry.run_url(known.run_id)
    progress(JOB, summary.message)
    return summary


def _fit_and_register(
    store: Store, registry: Registry, chosen: Plan, source: Source, writer: Any, summary: Summary,
    dry: bool,
) -> Version | None:  # fmt: skip
    service = chosen.service
    recipe = Recipe(
        chosen.hour, service.name, service.columns(), dict(source.windows), chosen.lineage
    )
    table = build(store, recipe)
    absent = [label for label in chosen.spec.labels if label not in table.column_names]
    if absent:
        raise SettingsError(
            f"source {source.name} declares no action for {absent}; "
            f"train.gbdt.tasks can be among {sorted(_tasks(table))}"
        )
    rows, held = split(table)
    summary.rows_in, summary.rows_out = table.num_rows, rows.num_rows
    progress(JOB, f"fitting on {rows.num_rows:,} rows, stopping early on {held.num_rows:,}")
    model = GBDTRanker(chosen.config, chosen.spec)
    report = model.fit(rows, held, lambda message: progress(JOB, message))
    training = Provenance.of(recipe, table, model.tasks)
    summary.details = {
        "rounds": dict(report.rounds),
        "immature": dict(report.immature),
        "censored": training.by_hour(),
        "training_set_sha": training.sha256,
    }
    if dry:
        summary.status, summary.message = "dry-run", "fitted; nothing registered"
        return None
    for table_name, snapshot in chosen.lineage.snapshots.items():
        store.tag(table_name, snapshot, snapshot_tag(chosen.name, chosen.hour, snapshot))

    def guard() -> None:
        with store.ledger.holding(writer.stage, [chosen.hour], writer.token):
            pass

    version = _register(registry, chosen, model, report, rows, held, training, guard)
    summary.message = f"registered {chosen.name} version {version.version}"
    return version


def _tasks(table: pa.Table) -> list[str]:
    return [c.removeprefix("label_") for c in table.column_names if c.startswith("label_")]


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
        "Fit LightGBM on [H - span, H) with the labels known at H, and register it in MLflow. "
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
