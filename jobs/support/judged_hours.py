"""Hours judged one by one: here, or by Spark's tasks where they hold more rows than one machine
should read. Only small things come back: metrics, sums, and a number a group."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import Final

import pyarrow as pa

from feature_store import hours as hr
from feature_store.attribution import lookback_hours
from feature_store.recipes import outcome_range
from feature_store.spark_io import run_tasks
from feature_store.tables import Store
from feature_store.training_set import Recipe, training_batches
from jobs.support.blocks import blocks
from jobs.support.contenders import Contender, baselines, contender
from jobs.support.judging import BESIDE, HourFound, folded, judge_hour, scored
from jobs.support.lagged import lagged
from jobs.support.session import spark_session
from jobs.support.settings import Settings
from models.registry import Registry

__all__ = ["HoursPlan", "Served", "Serving", "judged_here", "judged_hours"]

Say = Callable[[str], None]

_ROWS: Final = 65_536
"""Rows that are scored at once where no sequences are read."""
_LOADED: Final = 8
"""Models that are held at once."""


@dataclass(frozen=True)
class Served:
    """Who a role is in an hour: a registered version."""

    role: str
    name: str
    version: int


Serving = Mapping[str, tuple[Served, ...]]
"""By hour who is judged, the first role first."""


@dataclass(frozen=True)
class HoursPlan:
    """All that a task needs to judge some of the hours; pickled.

    Attributes:
        recipe: of all hours.
        lateness: hours that an event may be late.
        reference: role that segments are compared with.
        lag: hours; where above 0, the first role is judged on features so much older as well.
        groups: whether the names of the groups are wanted, which take more room than all the rest.
    """

    settings: Settings
    recipe: Recipe
    serving: Serving
    labels: tuple[str, ...]
    reference: str
    lateness: int
    lag: int = 0
    groups: bool = True

    def part(self, hours: Sequence[str]) -> Recipe:
        """The recipe of some of the hours: of the outcomes, those that can be theirs."""
        recipe = self.recipe
        known = hr.add(hours[-1], 1 + lookback_hours(recipe.windows, self.lateness))
        first, last = outcome_range(hours[0], min(recipe.cut, known))
        outcomes = tuple(h for h in recipe.lineage.outcome_hours if first <= h <= last)
        return replace(
            recipe, lineage=replace(recipe.lineage, hours=tuple(hours), outcome_hours=outcomes)
        )


class Loaded:
    """Contenders of versions, each loaded once and the last few of them held."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._held: OrderedDict[tuple[str, str, int], Contender] = OrderedDict()

    def of(self, served: Served, hour: str) -> Contender:
        """The contender on ``hour``.

        Raises:
            RefusedError: for a version that was fitted on ``hour`` or later.
        """
        key = (served.role, served.name, served.version)
        found = self._held.pop(key, None)
        if found is None or (found.data_hour or "") >= hour:
            version = self._registry.get(served.name, served.version)
            found = contender(self._registry, served.role, version, hour)
        self._held[key] = found
        if len(self._held) > _LOADED:
            self._held.popitem(last=False)
        return found


def judged_hours(plan: HoursPlan, sizes: Mapping[str, int], loaded: Loaded, store: Store,
                 say: Say) -> list[HourFound]:  # fmt: skip
    """Judge the hours of ``sizes``, which tells their rows, in order.

    Raises:
        RefusedError: for a version that was fitted on an hour that it should be judged on.
    """
    if sum(sizes.values()) <= plan.settings.evaluation.spark_rows:
        hours = (h for block in blocks(sizes, 1) for h in judged_here(plan, block, loaded, store))
        return folded(_told(hours, len(sizes), say))
    with spark_session("evaluate", plan.settings.spark) as spark:
        tasks = list(blocks(sizes, 4 * spark.sparkContext.defaultParallelism))
        say(f"{len(sizes)} hours, {sum(sizes.values()):,} rows, in {len(tasks)} tasks of Spark")
        if not spark.sparkContext.master.startswith("local"):  # no password leaves this machine
            plan = replace(plan, settings=plan.settings.sent())
        return folded(run_tasks(spark, tasks, partial(_judged_there, plan)))


def _told(hours: Iterable[HourFound], count: int, say: Say) -> Iterator[HourFound]:
    for number, hour in enumerate(hours, 1):
        if count > 1:
            say(f"{hour.hour}: {hour.rows:,} rows judged, {number} of {count} hours")
        yield hour


def _judged_there(plan: HoursPlan, hours: Sequence[str]) -> Iterator[HourFound]:
    """A task's work, in whatever process Spark gave it."""
    settings = plan.settings.received()
    store = settings.open_store()
    try:
        loaded = Loaded(Registry(settings.tracking()))
        yield from folded(judged_here(plan, hours, loaded, store))
    finally:
        store.close()


def judged_here(
    plan: HoursPlan, hours: Sequence[str], loaded: Loaded, store: Store
) -> Iterator[HourFound]:
    """Judge ``hours`` in order, of which only one hour's rows are held."""
    recipe = plan.part(hours)
    batches = (
        training_batches(store, recipe)
        if recipe.sequences
        else training_batches(store, recipe, _ROWS)
    )
    evaluation = plan.settings.evaluation
    by_hour = groupby(batches, key=_hour_of)
    there = next(by_hour, None)
    for hour in hours:
        present = [loaded.of(served, hour) for served in plan.serving[hour]]
        if plan.lag:
            present.append(lagged(present[0], store, recipe.time_zone, plan.lag))
        everyone = [*present, *baselines()]
        of_hour: Iterable[pa.RecordBatch] = ()  # an hour without rows has no batch
        if there is not None and there[0] == hour:
            of_hour = there[1]
        rows = scored(of_hour, everyone, plan.labels, BESIDE, evaluation.grades)
        found = judge_hour(
            hour, rows, everyone, plan.labels, plan.reference, evaluation.resamples,
            evaluation.seed,
        )  # fmt: skip
        yield found if plan.groups else _without_groups(found)
        if there is not None and there[0] == hour:
            there = next(by_hour, None)


def _hour_of(batch: pa.RecordBatch) -> str:
    hour: str = batch["hour"][0].as_py()
    return hour


def _without_groups(found: HourFound) -> HourFound:
    return replace(found, judged=tuple(replace(j, groups=j.groups[:0]) for j in found.judged))
