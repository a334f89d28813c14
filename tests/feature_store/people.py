"""A small store with rows of some people in every table that may have any, and who is in which."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import pyarrow as pa

from feature_store import hours as hr
from feature_store.counting import digest
from feature_store.parts import staged_parts, write_part
from feature_store.schemas import TABLES, optional
from feature_store.tables import HourWriter, Staged, Store, Writer
from feature_store.tiles import day_content
from feature_store.views import VIEWS

ZONE = "UTC"
DAY = hr.date_hours("2026-11-10", ZONE)
HOURS = [*DAY[:3], *DAY[22:], "2026-11-11T00"]
PEOPLE = ("person-ada", "person-bob", "person-cyd", "person-dan")
GONE = PEOPLE[0]
SMALL = ("outcomes", "quarantine", "counts_user", "counts_user_day", "samples", "events")
"""Tables of every kind, in few."""

ROWS = 8
WRITER = Writer("test", "test")

_OWN: dict[str, Callable[[str, int], str]] = {
    "hour": lambda hour, _: hour,
    "user_id": lambda _, n: person(n),
    "row_json": lambda _, n: json.dumps({"user_id": person(n), "query": f"like {GONE}", "odd": n}),
    # An item may be called as a person is.
    **dict.fromkeys(("source_type", "node_type"), lambda _, n: "user" if n % 2 else "item"),
    **dict.fromkeys(("source_id", "node_id"), lambda _, n: person(n // 2)),
    # What is a person's without naming them.
    "event_id": lambda _, n: f"e{n}",  # once an hour, as some sources number them
    "sample_id": lambda hour, n: f"s-{hour}-{n}",
    "group_id": lambda hour, n: f"{hour}|r|{n}",
}


def person(n: int) -> str:
    return PEOPLE[n % len(PEOPLE)]


def _value(of: pa.Field, hour: str, n: int) -> Any:
    """Something that fits a column, different from row to row."""
    if of.name in _OWN:
        return _OWN[of.name](hour, n)
    if pa.types.is_timestamp(of.type):
        return hr.start_of(hour) + dt.timedelta(seconds=n)
    if pa.types.is_boolean(of.type):
        return True
    if pa.types.is_integer(of.type):
        return n
    if pa.types.is_floating(of.type):
        return float(n)
    if pa.types.is_list(of.type) or pa.types.is_map(of.type):
        return []
    return f"{of.name}-{n}"


def rows(table: str, hour: str, shift: int = 0) -> pa.Table:
    schema = optional(TABLES[table].schema)
    made = [{of.name: _value(of, hour, n) for of in schema} for n in range(shift, shift + ROWS)]
    return pa.Table.from_pylist(made, schema=schema)


def hours_of(table: str) -> list[str]:
    if table in {view.counts_table for view in VIEWS}:
        return [*DAY, HOURS[-1]]
    return [DAY[-1]] if table in {view.day_counts_table for view in VIEWS} else HOURS


def theirs(table: str, row: dict[str, Any], user: str = GONE) -> bool:
    """Whether a row is the user's, told from how the store is made."""
    if "user_id" in row:
        return bool(row["user_id"] == user)
    if table == "quarantine":
        return bool(json.loads(row["row_json"])["user_id"] == user)
    for kind, name in (("source_type", "source_id"), ("node_type", "node_id")):
        if kind in row:
            return bool(row[kind] == "user" and row[name] == user)
    for name in ("event_id", "group_id"):
        if name in row and table in ("outcomes", "evaluation_groups"):
            number = int(row[name].rsplit("|")[-1].removeprefix("e"))
            return person(number) == user
    return False


def fill(store: Store, tables: Collection[str] = tuple(TABLES)) -> None:
    """``tables``; the hours of some were written before with other rows, which are tagged."""
    store.ledger.take_fence(WRITER.stage, hours_of("counts_user"), WRITER.token)
    for table in tables:
        if TABLES[table].partition != ("hour",):
            for hour in HOURS[:2] if TABLES[table].partition else ():
                where = {"hour": hour, "evaluation": "evaluation-1"}
                made = rows(table, hour)
                place = made.schema.get_field_index("evaluation")
                made = made.set_column(place, "evaluation", pa.repeat("evaluation-1", ROWS))
                store.commit_slice(made, table, where)
        elif table.startswith(("counts_", "features_")):
            _fill_parts(store, table)
        else:
            for shift in (1, 0) if table in ("events", "samples", "users") else (0,):
                staged = Staged(table)
                for hour in hours_of(table):
                    writer = HourWriter(store, table, hour)
                    writer.write(rows(table, hour, shift))
                    writer.close(staged)
                snapshot = store.commit(staged, WRITER)
                if shift and snapshot is not None:
                    store.tag(table, snapshot, f"model-{HOURS[0]}-{snapshot}")
    for view in (view for view in VIEWS if view.counts_table in tables):
        hashes = {h: c.content_hash for h, c in completed(store, view.counts_table).items()}
        of_day = completed(store, view.day_counts_table)[DAY[-1]]
        whole = day_content({hour: hashes[hour] for hour in DAY})
        store.ledger.complete([replace(of_day, content_hash=whole)])


def _fill_parts(store: Store, table: str) -> None:
    """Two files an hour, as tasks leave them."""
    folder, parts = store.staging(table), []
    for hour in hours_of(table):
        made = rows(table, hour)
        for part in (made.slice(0, 3), made.slice(3)):
            own = digest(part) if table.startswith("counts_") else None
            parts.append(write_part(folder, table, hour, part, own))
    [staged] = staged_parts(parts, [table], hours_of(table))
    store.commit(staged, WRITER)


def completed(store: Store, table: str) -> dict[str, Any]:
    return store.ledger.completions(table, "0", "9")


def content(store: Store) -> dict[str, list[str]]:
    """The rows of every table as texts, in order."""
    return {
        table: sorted(
            json.dumps(row, default=str, sort_keys=True)
            for row in store.read_all(table).to_pylist()
        )
        for table in store.existing()
    }


def without(
    store: Store, own: Callable[[str, dict[str, Any]], bool] = theirs
) -> dict[str, list[str]]:
    """What :func:`content` should be without what is somebody's."""
    return {
        table: sorted(
            json.dumps(row, default=str, sort_keys=True)
            for row in store.read_all(table).to_pylist()
            if not own(table, row)
        )
        for table in store.existing()
    }
