"""Rebuild the training set of a registered model bit for bit, and write it as Parquet."""

from __future__ import annotations

import argparse
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

from feature_store.training_set import RebuildError, rebuild
from jobs.support.arguments import job_parser
from jobs.support.settings import SettingsError, load_settings
from jobs.support.summary import RefusedError, Summary, main_of, progress
from jobs.train_gbdt import DEFAULT_NAME
from models.registry import Registry

__all__ = ["build_parser", "main", "run"]

JOB = "export_training_set"


def run(arguments: argparse.Namespace) -> Summary:
    out: Path = arguments.out
    if out.is_dir() or not out.parent.is_dir():
        raise SettingsError(f"--out {out} must name a file in a folder that is there")
    settings = load_settings(arguments)
    registry, store = Registry(settings.tracking()), settings.open_store()
    version = registry.resolve(arguments.name, arguments.version)
    body = registry.handoff(version)
    progress(JOB, f"{version.name} version {version.version}, trained to {body['data_hour']}")
    try:
        table = rebuild(store, body)
    except RebuildError as error:
        raise RefusedError(f"{version.name} version {version.version}: {error}") from error
    stored = body["training_set"]
    summary = Summary(
        JOB,
        stored["recipe"]["lineage"]["hours"],
        rows_in=table.num_rows,
        rows_out=table.num_rows,
        snapshots=stored["recipe"]["lineage"]["snapshots"],
        model={"name": version.name, "version": version.version},
        message=f"{table.num_rows} rows, the very ones that {version.name} version "
        f"{version.version} was trained on",
        details={"training_set_sha": stored["sha256"], "out": str(out)},
    )
    if arguments.dry_run:
        summary.status = "dry-run"
        return summary
    partial = out.with_name(f".{out.name}.{uuid.uuid4().hex}")
    pq.write_table(table, partial, compression="zstd")
    partial.replace(out)
    progress(JOB, f"{table.num_rows} rows to {out}")
    return summary


def build_parser() -> argparse.ArgumentParser:
    parser = job_parser(
        JOB,
        "Read the rows and labels that a registered version was trained on again, at the snapshots "
        "and the cut that the registry names, and refuse (exit status 3) unless they are the same "
        "to the bit.",
        "  export_training_set.py --version 7 --out training.parquet\n"
        "  export_training_set.py --name gbdt_ranker --version champion --out training.parquet\n"
        "  export_training_set.py --version 7 --out training.parquet --dry-run\n"
        "      check only that it could be made again\n",
        of_hours=False,
    )
    parser.add_argument("--name", default=DEFAULT_NAME, help="registered name [%(default)s]")
    parser.add_argument("--version", required=True, help="a version's number, or an alias")
    parser.add_argument("--out", required=True, type=Path, metavar="FILE", help="Parquet file")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    return main_of(JOB, build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
