"""The heterogeneous graph as data: its nodes, its edges, and how an edge is weighted.

Table ``edges`` is made from the entries below. An edge has no direction and is stored once, under
the ends of its type in the declared order. Adding a type of edge is one entry.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from feature_store.schemas import ACTIONS, ENTITY_TABLES, EVENTS, OUTCOME_ACTIONS

__all__ = ["ACTION_WEIGHTS", "EDGE_TYPES", "NODE_TYPES", "EdgeType", "Fact", "GraphRules"]

NODE_TYPES: Final[Mapping[str, str]] = {
    "user": "user_id",
    "item": "item_id",
    "room": "room_id",
    "host": "host_id",
    "category": "category",
    "query": "query",
}
"""The column that names a node of each type, in events and in entity tables."""

ACTION_WEIGHTS: Final[Mapping[str, float]] = {
    "impression": 0.0,
    "click": 1.0,
    "long_view": 2.0,
    "stay": 0.0,  # its seconds are those of a click that is there as well
    "cart": 3.0,
    "favor": 3.0,
    "order": 5.0,
    "cancel": 0.0,
    "follow": 4.0,
    "comment": 2.0,
    "like": 2.0,
    "share": 2.0,
    "hate": 0.0,
}
"""What an action adds to an edge unless a configuration says otherwise; 0: nothing, and no edge."""

_LEAST: Final = 1e-6
_MOST: Final = 1e6
_HALVINGS: Final = 500
"""So often a weight may be halved within the window and still be a number above 0."""


@dataclass(frozen=True)
class Fact:
    """Rows of an entity table that state edges.

    Attributes:
        table: the entity table; it has the columns of both ends.
        newest: only the newest row of a source counts, however long ago it arrived; where that
            names no target there is no edge.
        standing: a column that is true in rows that count however long ago they arrived, where the
            others count inside the window only.
    """

    table: str
    newest: bool = False
    standing: str | None = None


@dataclass(frozen=True)
class EdgeType:
    """Edges between nodes of two types, either from what users did or from what is known.

    Attributes:
        source, target: types of nodes.
        capped: whether a node keeps only its heaviest edges of this type.
        actions: what adds to an edge when an event has both ends. An event counts by its columns,
            whatever its target is, as in the feature views.
        facts: what states an edge.
        weight: that of a stated edge, however many rows state it; it does not decay.

    Raises:
        ValueError: for an unknown type, action or table, or one that lacks a column of an end.
    """

    source: str
    target: str
    description: str
    capped: bool
    actions: tuple[str, ...] = ()
    facts: tuple[Fact, ...] = ()
    weight: float = 1.0

    def __post_init__(self) -> None:
        unknown = sorted({self.source, self.target} - set(NODE_TYPES))
        if unknown:
            raise ValueError(f"edge {self.name}: no nodes {unknown}; known: {[*NODE_TYPES]}")
        if bool(self.actions) == bool(self.facts):
            raise ValueError(f"edge {self.name}: give either actions or facts")
        odd = sorted(set(self.actions) - set(ACTIONS))
        if odd:
            raise ValueError(f"edge {self.name}: no actions {odd}; known: {list(ACTIONS)}")
        tables = {"events": EVENTS} if self.actions else {}
        for fact in self.facts:
            if fact.table not in ENTITY_TABLES:
                raise ValueError(
                    f"edge {self.name}: no entity table {fact.table!r}; known: {[*ENTITY_TABLES]}"
                )
            tables[fact.table] = ENTITY_TABLES[fact.table]
        for table, schema in tables.items():
            lacking = sorted(set(self.columns) - set(schema.names))
            if lacking:
                raise ValueError(f"edge {self.name}: {table} has no columns {lacking}")

    @property
    def name(self) -> str:
        return f"{self.source}-{self.target}"

    @property
    def columns(self) -> tuple[str, str]:
        """The columns that name the source and the target."""
        return NODE_TYPES[self.source], NODE_TYPES[self.target]


EDGE_TYPES: Final[tuple[EdgeType, ...]] = (
    EdgeType(
        "user", "item", "What users did with items.", capped=True, actions=ACTIONS
    ),
    EdgeType(
        "user", "room", "What users did in live rooms, or with a host's items.", capped=True,
        actions=ACTIONS,
    ),
    EdgeType(
        "query", "item", "What was clicked, and more, after a search.", capped=True,
        actions=OUTCOME_ACTIONS,
    ),
    EdgeType(
        "item", "room", "Whose item it is, what a room offers, and what it explained.",
        capped=False, facts=(Fact("items", newest=True), Fact("room_items", standing="core")),
    ),
    EdgeType(
        "room", "host", "Who is live in a room.", capped=False, facts=(Fact("rooms", newest=True),)
    ),
    EdgeType(
        "item", "category", "What kind of item it is.", capped=False,
        facts=(Fact("items", newest=True),),
    ),
)  # fmt: skip


@dataclass(frozen=True)
class GraphRules:
    """How the graph of a day is made.

    Attributes:
        window_days: it is made of what arrived in so many business days, the day itself the last.
        half_life_days: an event weighs half for every so many days before the day's end.
        degree_cap: a node keeps so many edges of each capped type, its heaviest; an edge stays
            when it is among those of both its ends.
        action_weights: of actions that shall not weigh what ``ACTION_WEIGHTS`` says.

    Raises:
        ValueError: for a value that makes no sense, naming it.
    """

    window_days: int = 7
    half_life_days: float = 7.0
    degree_cap: int = 200
    action_weights: Mapping[str, float] = field(default_factory=lambda: dict(ACTION_WEIGHTS))

    def __post_init__(self) -> None:
        for name in ("window_days", "degree_cap"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        least = self.window_days / _HALVINGS
        if not least <= self.half_life_days < math.inf:
            raise ValueError(
                f"half_life_days is {self.half_life_days}; it must be a number of days, and at "
                f"least {least:g} with window_days {self.window_days}: weights would fade to 0"
            )
        unknown = sorted(set(self.action_weights) - set(ACTIONS))
        if unknown:
            raise ValueError(f"action_weights names {unknown}; actions are {list(ACTIONS)}")
        for action, weight in self.action_weights.items():
            number = isinstance(weight, int | float) and not isinstance(weight, bool)
            if not number or not (weight == 0 or _LEAST <= weight <= _MOST):
                raise ValueError(
                    f"action_weights.{action} is {weight!r}; it must be 0, or a number from "
                    f"{_LEAST:g} to {_MOST:,.0f}"
                )
        if not self.weights():
            raise ValueError("action_weights leaves every action at 0; give one a weight")

    def weights(self) -> dict[str, float]:
        """The actions that count, and what one event of each weighs on the day's last hour."""
        merged = {**ACTION_WEIGHTS, **self.action_weights}
        return {action: float(merged[action]) for action in ACTIONS if merged[action] > 0}
