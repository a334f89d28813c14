"""A simulation on disk: canonical Parquet, one file per hour of arrival, and a manifest.

    OUT/simulation.json                            the configuration and how many hours are complete
    OUT/events/hour=2026-11-08T00/part-0.parquet   what arrived in that hour, in order of arrival
    OUT/users, items, rooms, room_items/hour=...   what became known in that hour
    OUT/truth/...                                  see ``truth``; no training code reads it

A file appears whole or not at all, and every hour's content follows from the configuration and the
hour, so a run that was killed is simply repeated, and more hours extend what is there.
"""

from __future__ import annotations

import json
import multiprocessing
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_store import hours
from feature_store.schemas import ENTITY_TABLES
from feature_store.sources.arrow import hour_of_micros
from feature_store.sources.base import SourceError
from feature_store.sources.simulator.catalogue import entity_rows
from feature_store.sources.simulator.config import MarketConfig
from feature_store.sources.simulator.dirt import soil
from feature_store.sources.simulator.log import LOOSE_EVENTS, origin_events
from feature_store.sources.simulator.policies import LoggingPolicy, Policy
from feature_store.sources.simulator.truth import TruthTables, positions
from feature_store.sources.simulator.world import World

__all__ = [
    "HORIZON_HOURS",
    "MANIFEST",
    "TRUTH",
    "Made",
    "PolicyMaker",
    "Written",
    "arrivals",
    "read_manifest",
    "write_simulation",
]

MANIFEST: Final = "simulation.json"
TRUTH: Final = "truth"
HORIZON_HOURS: Final = 26
"""No event arrives more than so many hours after the hour of its request."""

_HOUR_MICROS = 3_600_000_000
_MANIFEST_SCHEMA = 2
_AHEAD = 2  # hours that wait for each process, so that none of them waits

PolicyMaker = Callable[[World], Policy]


@dataclass(frozen=True)
class Written:
    """What :func:`write_simulation` did."""

    unchanged: bool
    first: str
    last: str
    rows: int  # events in the files written now


@dataclass(frozen=True)
class Made:
    """One hour: what arrives in it, by ingested_at and event_id, and the truth about its own
    requests."""

    hour: int  # since the epoch
    events: pa.Table
    truths: list[TruthTables]


def arrivals(
    config: MarketConfig,
    count: int,
    skip: int = 0,
    *,
    processes: int = 1,
    policy: PolicyMaker = LoggingPolicy,
    with_truth: bool = False,
) -> Iterator[Made]:
    """Hours ``skip`` to ``count`` - 1 of the marketplace, one after the other.

    Every hour of requests is made by itself, so that the number of processes changes nothing.
    Memory holds what is still under way: never more than ``HORIZON_HOURS`` hours of delayed events,
    and ``_AHEAD`` hours for each process.

    Args:
        policy: who is in charge; made once per process, so it must be importable by name.
    """
    first = World(config).first
    numbers = range(max(skip - HORIZON_HOURS, 0), count)
    tasks = ((config, policy, first + n, with_truth and n >= skip) for n in numbers)
    pending: dict[int, list[pa.Table]] = defaultdict(list)
    for number, (parts, truths) in zip(numbers, _spread(tasks, processes), strict=True):
        hour = first + number
        for arrival, part in parts:
            pending[arrival].append(part)
        arrived = pending.pop(hour, [])
        if number >= skip:
            yield Made(hour, _ordered(arrived), truths)


_Task = tuple[MarketConfig, PolicyMaker, int, bool]
_Result = tuple[list[tuple[int, pa.Table]], list[TruthTables]]


def _spread(tasks: Iterable[_Task], processes: int) -> Iterator[_Result]:
    """The results of ``_make`` in order, made by so many processes."""
    if processes == 1:
        yield from (_make(*task) for task in tasks)
        return
    # spawned, since a fork would copy Arrow's threads in whatever state they are
    context = multiprocessing.get_context("spawn")
    waiting: deque[Future[_Result]] = deque()
    with ProcessPoolExecutor(processes, mp_context=context) as pool:
        for task in tasks:
            waiting.append(pool.submit(_make, *task))
            if len(waiting) >= processes * _AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _make(config: MarketConfig, policy: PolicyMaker, hour: int, with_truth: bool) -> _Result:
    """The events of an hour's requests by hour of arrival, and the truth about them."""
    world = _world(config)
    events, truths = origin_events(world, hour, policy(world), with_truth)
    return list(_by_arrival(soil(events, config, hour))), truths


@lru_cache(maxsize=1)
def _world(config: MarketConfig) -> World:
    return World(config)


def _by_arrival(events: pa.Table) -> Iterator[tuple[int, pa.Table]]:
    arrival = np.asarray(events["ingested_at"].cast(pa.int64()).to_numpy()) // _HOUR_MICROS
    for hour in np.unique(arrival):
        # taken, not sliced: a slice would keep the whole hour in memory
        yield int(hour), events.take(pa.array(np.flatnonzero(arrival == hour)))


def _ordered(parts: list[pa.Table]) -> pa.Table:
    if not parts:
        return LOOSE_EVENTS.empty_table()
    order = [("ingested_at", "ascending"), ("event_id", "ascending")]
    return pa.concat_tables(parts).sort_by(order).combine_chunks()


def write_simulation(
    config: MarketConfig,
    folder: Path,
    count: int,
    progress: Callable[[str, int], None],
    *,
    processes: int = 1,
    policy: PolicyMaker = LoggingPolicy,
    with_truth: bool = True,
) -> Written:
    """Write the first ``count`` hours of a marketplace; nothing when they are all there.

    Args:
        progress: called after each hour with its name and its number of events.
        processes, policy, with_truth: see :func:`arrivals`.

    Raises:
        SourceError: when ``folder`` holds another simulation, more hours of this one, or other
            data.
    """
    last = hours.add(config.start, count - 1)
    done = _complete_hours(config, folder, count)
    if done == count:
        return Written(True, config.start, last, 0)
    folder.mkdir(parents=True, exist_ok=True)
    if done == 0:
        _write_manifest(config, folder, 0)
    rows = 0
    world = World(config)
    if with_truth:
        _write(positions(config), folder / TRUTH / "positions")
    made_hours = arrivals(
        config, count, done, processes=processes, policy=policy, with_truth=with_truth
    )
    for made in made_hours:
        name = hour_of_micros(made.hour * _HOUR_MICROS)
        for table in ENTITY_TABLES:
            entities = entity_rows(world, table, made.hour)
            if entities.num_rows:
                _write(entities, folder / table / f"hour={name}")
        _write_truths(made.truths, folder / TRUTH, name)
        _write(made.events, folder / "events" / f"hour={name}")
        rows += made.events.num_rows
        progress(name, made.events.num_rows)
    _write_manifest(config, folder, count)
    return Written(False, hours.add(config.start, done), last, rows)


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a simulation (``config``, ``config_sha``, ``hours`` complete), or None.

    Raises:
        SourceError: when the file is there but is no manifest of this version.
    """
    path = folder / MANIFEST
    if not path.exists():
        return None
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        known = manifest["schema"] == _MANIFEST_SCHEMA and {"config", "config_sha", "hours"}
    except (ValueError, KeyError, TypeError) as error:
        raise SourceError(
            f"{path} is no manifest of a simulation ({error!r}); "
            "remove the folder and simulate again"
        ) from error
    if not known or not known <= set(manifest):
        raise SourceError(f"{path} is of another version; remove the folder and simulate again")
    return dict(manifest)


def _complete_hours(config: MarketConfig, folder: Path, count: int) -> int:
    """How many hours of this simulation the folder holds; raises when it holds something else."""
    manifest = read_manifest(folder)
    if manifest is None:
        hidden = f".{MANIFEST}.tmp"  # all that a run killed at its very start leaves
        if folder.exists() and any(path.name != hidden for path in folder.iterdir()):
            raise SourceError(f"{folder} is not empty and holds no {MANIFEST}; choose a new folder")
        return 0
    if manifest["config_sha"] != config.sha:
        other, mine = manifest["config"], config.to_dict()
        apart = [
            f"{key} {other.get(key)!r} there, {mine.get(key)!r} asked for"
            for key in sorted({*other, *mine})
            if other.get(key) != mine.get(key)
        ]
        raise SourceError(
            f"{folder} holds another simulation ({'; '.join(apart) or 'another version'}); "
            "choose a new folder, or remove that one"
        )
    done = int(manifest["hours"])
    if done > count:
        raise SourceError(
            f"{folder} holds {done} hours of this simulation, and {count} were asked for; "
            f"ask for {done} or more, choose a new folder, or remove that one"
        )
    return done


def _write_truths(truths: list[TruthTables], folder: Path, name: str) -> None:
    for kind in ("impressions", "slates") if truths else ():
        table = pa.concat_tables(getattr(truth, kind) for truth in truths)
        _write(table, folder / kind / f"hour={name}")


def _write(table: pa.Table, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    hidden, final = folder / ".part-0.tmp", folder / "part-0.parquet"
    pq.write_table(table, hidden, write_page_checksum=True)
    hidden.replace(final)


def _write_manifest(config: MarketConfig, folder: Path, complete: int) -> None:
    content = {
        "schema": _MANIFEST_SCHEMA,
        "config": config.to_dict(),
        "config_sha": config.sha,
        "hours": complete,
    }
    hidden = folder / f".{MANIFEST}.tmp"
    hidden.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    hidden.replace(folder / MANIFEST)
