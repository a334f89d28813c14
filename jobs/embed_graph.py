"""Embed a business day's graph: metapath2vec, from the vectors of the day before."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from feature_store.tables import HourWriter, Staged, Store, Writer
from jobs.support.arguments import date_parser, run_date
from jobs.support.embedding_page import embedding_artefacts
from jobs.support.embeddings import EmbeddingPlan, embedding_plan, node_rows, register_embedding
from jobs.support.fencing import claim, run_token
from jobs.support.settings import Settings, SettingsError, load_settings
from jobs.support.snapshot_tags import snapshot_tag
from jobs.support.stages import require_date
from jobs.support.summary import Summary, main_of, progress, skipped
from models.graph.heterograph import EDGE_COLUMNS
from models.graph.metapaths import MetapathError
from models.metapath2vec import Metapath2Vec
from models.registry import Registry, Version

__all__ = ["build_parser", "embed", "main", "run"]

JOB = "embed_graph"
NAME, TABLE = "metapath2vec", "node_embeddings"


def embed(
    store: Store, settings: Settings, date: str, hours: Sequence[str], token: str, dry: bool,
    from_scratch: bool = False,
) -> Summary:  # fmt: skip
    """Train, commit and register the vectors of ``date``, whose ``hours`` are given.

    A version of the same run key is left as it is; damaged files of its vectors are replaced.

    A day without anything to walk is skipped.

    Raises:
        RefusedError: when the day's edges are not made.
        SettingsError: for metapaths that no graph can have edges for.
    """
    hour = require_date(store, "edges", date, hours, "build_graph")
    writer = claim(store, JOB, [hour], token)
    registry = Registry(settings.tracking())
    plan = embedding_plan(store, registry, settings, NAME, date, hour, from_scratch)
    summary = Summary(JOB, hours)
    known = registry.find(NAME, plan.run_key)
    if known is not None:
        summary.status, summary.message = "unchanged", f"{NAME} version {known.version} is this run"
        if not dry and not store.intact(TABLE, [hour]):
            _commit(store, _model_of(registry, known), hour, writer, summary)
            summary.message += ", whose damaged vectors are written again"
    else:
        try:
            known = _made(store, registry, plan, writer, summary, dry)
        except MetapathError as error:  # all could be: the plan was checked
            return skipped(summary, f"{date} has nothing to walk: {error}")
    if known is not None:
        summary.model = {"name": NAME, "version": known.version}
        summary.mlflow_run_url = registry.run_url(known.run_id)
    if summary.status != "skipped":  # which has been said
        progress(JOB, summary.message)
    return summary


def _made(
    store: Store, registry: Registry, plan: EmbeddingPlan, writer: Writer, summary: Summary,
    dry: bool,
) -> Version | None:  # fmt: skip
    edges = store.read("edges", [plan.hour], EDGE_COLUMNS)
    if not edges.num_rows:
        skipped(summary, f"{plan.date} has no edges")
        return None
    model = Metapath2Vec.build(plan.config)
    earlier = _earlier(registry, plan, model)

    def said(message: str) -> None:
        progress(JOB, message)

    report = model.fit_edges(edges, plan.date, earlier, said)
    summary.rows_in, summary.rows_out = edges.num_rows, len(model.nodes)
    summary.details = {
        "nodes": model.counts(),
        "embedding_version": model.embedding_version,
        "fresh": report.fresh,
        "kept": report.kept,
        "aged": report.aged,
        **{k: v for k, v in report.metrics().items() if k.startswith(("drift", "fit"))},
    }
    summary.message = f"{len(model.nodes):,} vectors in space {model.embedding_version}"
    if dry:
        summary.status = "dry-run"
        return None
    _commit(store, model, plan.hour, writer, summary)
    if plan.snapshot is not None:
        store.tag("edges", plan.snapshot, snapshot_tag(NAME, plan.hour, plan.snapshot))

    def guard() -> None:
        with store.ledger.holding(writer.stage, [plan.hour], writer.token):
            pass

    pages = embedding_artefacts(model, report, edges)
    version = register_embedding(registry, plan, model, report, pages, guard)
    summary.message += f", {NAME} version {version.version}"
    return version


def _commit(store: Store, model: Metapath2Vec, hour: str, writer: Writer, summary: Summary) -> None:
    staged = Staged(TABLE)
    rows = HourWriter(store, TABLE, hour)
    rows.write(node_rows(model, hour))
    rows.close(staged)
    summary.snapshots = {TABLE: store.commit(staged, writer)}


def _model_of(registry: Registry, version: Version) -> Metapath2Vec:
    found = registry.load_model(NAME, version.version).model
    if not isinstance(found, Metapath2Vec):
        raise SettingsError(f"{NAME} version {version.version} is a {found.family}")
    return found


def _earlier(registry: Registry, plan: EmbeddingPlan, model: Metapath2Vec) -> Metapath2Vec | None:
    """The model that training goes on from, if its vectors have the width that is wanted."""
    if plan.earlier is None:
        progress(JOB, "from scratch: there are no vectors of an earlier day to go on from")
        return None
    found = _model_of(registry, plan.earlier)
    width = model.config.skip_gram.dimensions
    if found.vectors.shape[1] != width:
        progress(JOB, f"from scratch: version {plan.earlier.version} has vectors of "
                      f"{found.vectors.shape[1]} numbers, not {width}")  # fmt: skip
        return None
    progress(JOB, f"from version {plan.earlier.version}, the vectors of {found.day}")
    return found


def run(arguments: argparse.Namespace) -> Summary:
    settings = load_settings(arguments)
    hours = run_date(arguments, settings.open_source().time_zone)
    store = settings.open_store()
    token = run_token(arguments.run_id)
    dry, scratch = arguments.dry_run, arguments.from_scratch
    return embed(store, settings, arguments.date, hours, token, dry, scratch)


def build_parser() -> argparse.ArgumentParser:
    parser = date_parser(
        JOB,
        "Learn a vector for every node of a business day's graph (metapath2vec), from the vectors "
        "of the newest day before it, and turned back onto their axes. Commit them to the table "
        "node_embeddings, under the day's last hour, and register them as metapath2vec.",
        "  embed_graph.py --date 2026-11-10\n"
        "  embed_graph.py --date 2026-11-10 --from-scratch --dry-run\n",
    )
    parser.add_argument(
        "--from-scratch", action="store_true", help="start from random vectors, in a new space"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    return main_of(JOB, build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
