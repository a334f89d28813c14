"""From who serves some hours to a verdict on them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final

import pyarrow as pa

from feature_store import hours as hr
from feature_store.services import SERVICES
from feature_store.sources.base import Source
from feature_store.tables import Store
from feature_store.training_set import Recipe, lineage, training_batches
from jobs.support.behaviour import run_checks
from jobs.support.contenders import baselines
from jobs.support.deep_features import reading
from jobs.support.judged_hours import HoursPlan, Loaded, Say, Serving, judged_hours
from jobs.support.judging import GRADED, pooled, pooled_sums
from jobs.support.report import CheckLine
from jobs.support.segments import segment_columns, segment_lines
from jobs.support.settings import Settings
from jobs.support.stages import require_hours
from jobs.support.stopwatch import Stopwatch
from jobs.support.summary import RefusedError
from jobs.support.verdicts import Verdict, differences, exposure_lines, reliability
from models import FeatureSpec
from models.registry import Version

__all__ = ["Span", "checks", "judged", "readable_sizes"]

_CHECKED_ROWS: Final = 8192
"""Rows of an hour that are read for the checks; streams give no more at once."""


@dataclass(frozen=True)
class Span:
    """The hours that are judged, and the cut of their labels; ``lag`` is how far back they lie."""

    first: str
    last: str
    cut: str
    lag: int = 0

    @property
    def words(self) -> str:
        return self.first if self.first == self.last else f"{self.first} to {self.last}"

    @property
    def hours(self) -> list[str]:
        return hr.hour_range(self.first, self.last)


def readable_sizes(store: Store, span: Span, say: Say) -> dict[str, int]:
    """Samples of each hour of ``span`` that is readable.

    Raises:
        RefusedError: when none is.
    """
    found = store.ledger.readable("samples", span.first, span.last)
    if not found:
        raise RefusedError(
            f"samples of {span.words} are not there. Run: spark-submit jobs/build_samples.py "
            f"--from-hour {span.first} --to-hour {span.last}"
        )
    missing = len(span.hours) - len(found)
    if missing:
        say(f"{missing} hours of {span.words} are not readable, and left out")
    return {hour: completion.rows for hour, completion in found.items()}


def judged(
    store: Store, settings: Settings, span: Span, sizes: Mapping[str, int], serving: Serving,
    loaded: Loaded, labels: Sequence[str], reference: str, watch: Stopwatch, say: Say,
    version: Version | None = None, lag: int = 0,
) -> tuple[Verdict, HoursPlan]:  # fmt: skip
    """Everyone who serves the hours of ``sizes``, and the baselines, on them.

    Args:
        serving: of all hours of ``sizes``.
        reference: role that segments are compared with.
        version: the candidate, whose run is to keep what is found.
        lag: hours; where above 0, the first role is judged on features so much older as well.

    Raises:
        RefusedError: for a version that has seen an hour, or hours without the sequences it reads.
        StoreError: when the older features are not published.
    """
    source, read = settings.open_source(), _read(serving, loaded)
    known = dict.fromkeys((*(n for n in labels if n != GRADED), *settings.evaluation.grades))
    recipe = _recipe(store, source, span, sizes, read, tuple(known))
    watch.lap("load_models")
    lateness = math.ceil(settings.ingest.allowed_lateness_hours)
    plan = HoursPlan(
        settings, recipe, {hour: serving[hour] for hour in sizes}, tuple(labels), reference,
        lateness, lag, groups=version is not None,
    )  # fmt: skip
    found = judged_hours(plan, sizes, loaded, store, say)
    watch.lap("read_and_judge")
    resamples, seed = settings.evaluation.resamples, settings.evaluation.seed
    every, told = pooled(found, resamples, seed), pooled_sums(found)
    lines = segment_lines([table for hour in found for table in hour.segments], reference)
    apart = differences(every, resamples, seed)
    drawn = reliability(every, told, span.words)
    shown = exposure_lines(found)
    verdict = Verdict(span.first, span.words, version, every, apart, found, lines, shown, told,
                      drawn)  # fmt: skip
    watch.lap("pool")
    return verdict, plan


def checks(store: Store, plan: HoursPlan, loaded: Loaded) -> list[CheckLine]:
    """Behavioural checks of the first role, on whole groups of the last hour that has rows."""
    for hour in sorted(plan.serving, reverse=True):
        batches = training_batches(store, plan.part([hour]), _CHECKED_ROWS)
        found = [batch for batch in islice(batches, 1) if batch.num_rows]
        if found:
            one = loaded.of(plan.serving[hour][0], hour)
            return run_checks(one, pa.Table.from_batches(found), plan.labels[0])
    return []


@dataclass
class _Read:
    """What contenders look at."""

    columns: set[str]
    specs: list[FeatureSpec]


def _read(serving: Serving, loaded: Loaded) -> _Read:
    """What everyone who serves any hour looks at; the models themselves are not kept."""
    found = _Read({*segment_columns(), *(name for one in baselines() for name in one.reads)}, [])
    earliest = {served: hour for hour in sorted(serving, reverse=True) for served in serving[hour]}
    for served, hour in sorted(earliest.items(), key=lambda pair: pair[1]):
        one = loaded.of(served, hour)
        found.columns.update(one.reads)
        if one.spec is not None:
            found.specs.append(one.spec)
    return found


def _recipe(
    store: Store, source: Source, span: Span, sizes: Mapping[str, int],
    read: _Read, labels: Sequence[str],
) -> Recipe:  # fmt: skip
    """The rows of the hours, with what is read of them."""
    service, zone = reading(SERVICES["deep_graph_ranking"], read.specs), source.time_zone
    origin = lineage(store, span.first, span.last, span.cut, service, zone)
    views = service.sequence_views()
    for view in views:
        require_hours(store, view.table, list(sizes), "build_samples")
    columns = tuple(name for name in service.columns() if name in read.columns)
    return Recipe(
        span.cut, service.name, columns, dict(source.windows), origin, tuple(labels),
        tuple(view.name for view in views), service.vectors, service.similarities, zone,
    )  # fmt: skip
