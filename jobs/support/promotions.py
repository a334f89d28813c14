"""The promotion log: what served when, and what a crash left half done."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from feature_store.schemas import PROMOTIONS
from feature_store.tables import Store

__all__ = [
    "ALIASES", "append", "champion_before", "decision", "history", "last_move", "of_record",
    "serving_since", "unfinished",
]  # fmt: skip

ALIASES: Final = ("alias",)
"""What a promoter holds the fence of while it moves the aliases of a name."""


def history(store: Store, name: str) -> list[dict[str, Any]]:
    """Every row of ``name``, in the order of decision hours, then of time."""
    rows = store.read_all("promotions")
    rows = rows.filter(pc.equal(rows["name"], name))
    order = pc.sort_indices(
        rows,
        sort_keys=[("hour", "ascending"), ("decided_at", "ascending"), ("stage", "descending")],
    )
    found: list[dict[str, Any]] = rows.take(order).to_pylist()
    return found


def champion_before(store: Store, name: str, hour: str) -> str | None:
    """The version that served before ``hour``: the last decision with an earlier hour."""
    done = [row for row in history(store, name) if row["stage"] == "done" and row["hour"] < hour]
    return done[-1]["champion"] if done else None


def last_move(store: Store, name: str) -> dict[str, Any] | None:
    """The last decision by which one champion took the place of another: what a rollback undoes."""
    done = [row for row in history(store, name) if row["stage"] == "done"]
    moves = [row for row in done if row["action"] != "keep" and row["previous"] is not None]
    return moves[-1] if moves else None


def serving_since(store: Store, name: str) -> dt.datetime | None:
    """When the present champion of ``name`` was promoted, or rolled back to; None without one."""
    done = [row for row in history(store, name) if row["stage"] == "done"]
    moves: list[dt.datetime] = [row["decided_at"] for row in done if row["action"] != "keep"]
    return moves[-1] if moves else None


def of_record(store: Store, name: str, since: str) -> set[str]:
    """Versions that the log of ``name`` still needs: those that served at ``since`` or later, the
    one that a rollback puts back, and what an interrupted decision is about."""
    done = [row for row in history(store, name) if row["stage"] == "done"]
    needed = {row["champion"] for row in done if row["hour"] >= since}
    needed.add(champion_before(store, name, since))
    move = last_move(store, name)
    if move is not None:
        needed.add(move["previous"])
    for row in unfinished(store, name):
        needed |= {row["champion"], row["version"], row["previous"]}
    return {str(number) for number in needed if number is not None}


def decision(store: Store, name: str, hour: str, version: str) -> dict[str, Any] | None:
    """The finished decision on ``version`` at ``hour``, if there is one."""
    for row in history(store, name):
        if (row["stage"], row["hour"], row["version"]) == ("done", hour, version):
            return row
    return None


def unfinished(store: Store, name: str) -> list[dict[str, Any]]:
    """Intents that no done followed, oldest first."""
    rows = history(store, name)
    done = {row["decision_id"] for row in rows if row["stage"] == "done"}
    return [row for row in rows if row["stage"] == "intent" and row["decision_id"] not in done]


def append(store: Store, row: Mapping[str, Any], stage: str) -> None:
    """Append one row; ``evidence`` is a mapping, kept as JSON."""
    values = {
        **row,
        "stage": stage,
        "decided_at": dt.datetime.now(dt.UTC),
        "evidence_json": row.get("evidence_json") or json.dumps(row["evidence"], sort_keys=True),
    }
    values.pop("evidence", None)
    store.append(pa.Table.from_pylist([values], schema=PROMOTIONS), "promotions")
