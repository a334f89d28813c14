"""Compare features as a ranker logged them at serving time with those that the samples hold."""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds

from feature_store.services import FeatureService, ServiceError, feature_service
from feature_store.skew import PAIRINGS, FeatureSkew, Skew, as_rows, paired
from feature_store.tables import Store
from jobs.support.arguments import job_parser, run_hours
from jobs.support.settings import Settings, SettingsError, load_settings
from jobs.support.skew_page import SHOWN, skew_lines, skew_page
from jobs.support.stages import require_hours
from jobs.support.summary import RefusedError, Summary, main_of, progress

__all__ = ["build_parser", "main", "run"]

JOB = "check_skew"
_TOLERANCE = 1e-5


@dataclass(frozen=True)
class _Log:
    """The log of a ranker: what names its impressions, and which features it holds."""

    rows: ds.Dataset
    keys: tuple[str, ...]
    features: tuple[str, ...]
    absent: tuple[str, ...]


def open_log(path: Path, service: FeatureService) -> _Log:
    """The Parquet file or folder of logged features.

    Raises:
        SettingsError: when it cannot be read, names no impressions, or holds no feature.
    """
    try:
        rows = ds.dataset(path, format="parquet", partitioning="hive")
    except (OSError, pa.ArrowInvalid) as error:
        raise SettingsError(f"--logged {path} is no Parquet file or folder: {error}") from error
    names = set(rows.schema.names)
    keys = next((keys for keys in PAIRINGS if names.issuperset(keys)), None)
    if keys is None:
        raise SettingsError(
            f"--logged {path} has the columns {rows.schema.names}; to name its impressions it "
            f"needs {' or '.join(', '.join(keys) for keys in PAIRINGS)}"
        )
    features = tuple(c for c in service.columns() if c in names)
    if not features:
        raise SettingsError(
            f"--logged {path} holds no feature of service {service.name!r}; its columns are "
            f"{rows.schema.names}, a feature is called {service.columns()[-1]!r}, for instance"
        )
    return _Log(rows, keys, features, tuple(c for c in service.columns() if c not in names))


def compare(
    store: Store, log: _Log, hours: Sequence[str], tolerance: float
) -> tuple[list[FeatureSkew], dict[str, int]]:
    """Features of the log against the samples of ``hours``, hour by hour; and the rows counted."""
    skew = Skew(log.features, tolerance)
    counts = {"logged": log.rows.count_rows(), "samples": 0, "pairs": 0, "not_logged": 0}
    columns = list(dict.fromkeys((*log.keys, *log.features)))
    for hour in hours:
        samples = store.read("samples", [hour], columns)
        here = ds.field(log.keys[0]).isin(samples[log.keys[0]].unique())
        logged = log.rows.to_table(columns=columns, filter=here)
        mine, theirs = paired(logged, samples, log.keys)
        skew.add(logged.take(pa.array(mine)), samples.take(pa.array(theirs)))
        counts["samples"] += samples.num_rows
        counts["pairs"] += len(mine)
        counts["not_logged"] += samples.num_rows - len(set(theirs.tolist()))
    counts["without_sample"] = counts["logged"] - counts["pairs"]
    return skew.features(), counts


def _publish(
    arguments: argparse.Namespace, settings: Settings, hours: Sequence[str], service: str,
    found: Sequence[FeatureSkew], counts: dict[str, int], summary: Summary,
) -> None:  # fmt: skip
    """Write the page where asked, and log it where MLflow is."""
    title = f"Serving skew, {hours[0]} to {hours[-1]}"
    words = (
        f"{counts['pairs']:,} logged impressions against the samples of {len(hours)} hours; "
        f"{counts['without_sample']:,} logged rows have no sample in these hours, "
        f"{counts['not_logged']:,} samples were not logged."
    )
    page = skew_page(title, words, found)
    if arguments.page is not None:
        arguments.page.write_text(page, encoding="utf-8")
        progress(JOB, f"page: {arguments.page}")
    if settings.tracking_uri:
        from models.registry import Registry  # MLflow takes seconds to import

        summary.mlflow_run_url = Registry(settings.tracking()).log_page(
            "serving_skew",
            f"serving_skew:{hours[0]}:{hours[-1]}:{service}",
            title,
            {"data_hour": hours[-1], "code_version": importlib.metadata.version("rankmill")},
            {"feature_service": service, "tolerance": arguments.tolerance},
            {
                "largest_share": found[0].share,
                "features_differing": float(sum(f.differing > 0 for f in found)),
                **{f"rows_{name}": float(count) for name, count in counts.items()},
            },
            {"skew.html": page},
        )


def run(arguments: argparse.Namespace) -> Summary:
    settings = load_settings(arguments)
    hours = run_hours(arguments, settings.open_source().time_zone)
    name = arguments.feature_service or settings.train.feature_service
    try:
        log = open_log(arguments.logged, feature_service(name))
    except ServiceError as error:
        raise SettingsError(str(error)) from error
    store = settings.open_store()
    require_hours(store, "samples", hours, "build_samples")
    try:
        found, counts = compare(store, log, hours, arguments.tolerance)
    except TypeError as error:
        raise SettingsError(f"--logged {arguments.logged}: {error}") from error
    if not counts["pairs"]:
        raise RefusedError(
            f"none of the {counts['logged']} logged rows is an impression of {hours[0]} to "
            f"{hours[-1]}, compared by {', '.join(log.keys)}; name the hours that were logged"
        )
    for line in skew_lines(found):
        progress(JOB, line)
    summary = Summary(JOB, hours, rows_in=counts["logged"], rows_out=counts["pairs"])
    worst: list[Any] = [row for row in as_rows(found) if row["share"]][:SHOWN]
    summary.details = {**counts, "features": len(found), "worst": worst, "not_in_log": log.absent}
    summary.message = f"{sum(f.differing > 0 for f in found)} of {len(found)} features differ"
    if not arguments.dry_run:
        _publish(arguments, settings, hours, name, found, counts, summary)
    _judge(found, arguments.fail_above, summary)
    return summary


def _judge(found: Sequence[FeatureSkew], limit: float | None, summary: Summary) -> None:
    """Raise RefusedError for features that differ in more than the share ``limit`` of the rows."""
    over = [f for f in found if limit is not None and f.share > limit]
    if over:
        named = ", ".join(f"{f.feature} {f.share:.2%}" for f in over[:3])
        raise RefusedError(
            f"{len(over)} of {len(found)} features differ in more than {limit:.2%} of "
            f"{found[0].rows} rows: {named}{', ...' if len(over) > 3 else ''}. What serves "
            "computes them otherwise, or read them at another hour",
            summary,
        )


def _share(text: str) -> float:
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is no share; give a number from 0 to 1")
    return value


def build_parser() -> argparse.ArgumentParser:
    parser = job_parser(
        JOB,
        "Pair the impressions that a ranker logged, features included, with the samples of the "
        "same impressions, and report the difference feature by feature, worst first. Impressions "
        "are paired by sample_id, else by request_id, target_id and user_id.",
        "  check_skew.py --hour 2026-11-11T05 --logged served.parquet\n"
        "  check_skew.py --date 2026-11-11 --logged served/ --page skew.html\n"
        "  check_skew.py --hour 2026-11-11T05 --logged served/ --fail-above 0.001\n"
        "      exit status 3 when any feature differs in more than one of a thousand rows\n",
    )
    parser.add_argument(
        "--logged", required=True, type=Path, metavar="PATH", help="Parquet file or folder"
    )
    parser.add_argument(
        "--feature-service", metavar="NAME", help="whose features are compared [train's own]"
    )
    parser.add_argument(
        "--tolerance", type=float, default=_TOLERANCE, metavar="X",
        help="numbers differ when |a - b| > X * max(1, |b|) [%(default)s]",
    )  # fmt: skip
    parser.add_argument(
        "--fail-above", type=_share, metavar="SHARE",
        help="refuse when a feature differs in more than this share of the rows [never]",
    )  # fmt: skip
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the page here as well")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    return main_of(JOB, build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
