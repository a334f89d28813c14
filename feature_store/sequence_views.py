"""Sequence views as data: what a user did, or a room offered, before an instant.

The tables ``sequences_<view>`` and the columns of a training set's sequences are derived from the
entries below. Adding a sequence is one entry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

__all__ = [
    "BEHAVIOUR_ACTIONS",
    "CORE",
    "ELEMENTS",
    "EXPLAIN",
    "MAX_LOOKBACK_HOURS",
    "SEQUENCE_VIEWS",
    "STAY",
    "SequenceView",
]

ELEMENTS: Final[Mapping[str, pa.DataType]] = {
    "item_id": pa.string(),
    "room_id": pa.string(),
    "action": pa.string(),
    "category": pa.string(),  # as known in the hour in which the element arrived
    "gap": pa.int32(),  # whole seconds from the element to the as_of
    "stay": pa.float32(),  # seconds stayed on the element's impression, 0 where none are known
}
"""What an element may say. The gap is to the as_of, not to the next element: it means the same at
every place of a sequence, and the other is a difference of two of it."""

STAY: Final = "stay"
"""The action whose seconds are joined to the elements of the same impression."""

CORE: Final = "core"
EXPLAIN: Final = "explain"
"""What a room does with an item, from ``room_items``: its standing offer, and what it explains."""


@dataclass(frozen=True)
class SequenceView:
    """The newest elements of a key, newest last.

    Attributes:
        name: its table is ``sequences_<name>``.
        key: ``user_id``, whose elements are behaviour, or ``room_id``, whose elements are
            ``room_items``.
        actions: what is collected; ``CORE`` and ``EXPLAIN`` for a room.
        collects: the column that an element must have, ``item_id`` or ``room_id``.
        elements: columns of an element, from ``ELEMENTS``.
        length: how many elements are kept.
        lookback_hours: only what arrived in [as_of - lookback, as_of) is used; None for whatever
            arrived before ``as_of``.
        ended_minutes: an element that has ended counts for so long after its end; None for ever.
        once: a collected item is there once, as it was last declared.
    """

    name: str
    key: str
    description: str
    actions: tuple[str, ...]
    collects: str
    elements: tuple[str, ...]
    length: int
    lookback_hours: int | None
    ended_minutes: int | None = None
    once: bool = False
    owner: str = "ranking"

    def __post_init__(self) -> None:
        unknown = sorted({*self.elements} - set(ELEMENTS))
        if unknown or not self.elements:
            raise ValueError(f"sequence {self.name}: no elements {unknown}; known: {[*ELEMENTS]}")
        if self.key not in ("user_id", "room_id"):
            raise ValueError(f"sequence {self.name}: key {self.key!r}; use user_id or room_id")
        if self.key == "user_id" and self.lookback_hours is None:
            raise ValueError(f"sequence {self.name}: behaviour is read for some hours; set them")

    @property
    def table(self) -> str:
        return f"sequences_{self.name}"

    def columns(self) -> tuple[str, ...]:
        """What a training set carries of this view, ``<view>_<element>``; all lists."""
        return tuple(f"{self.name}_{element}" for element in self.elements)


_OFFER: Final = ("item_id", "category", "gap")

# An event counts by its columns, whatever its target is, as in the feature views: the click on a
# room is one on the item that it explained, and the click on an item is a visit to its host.

SEQUENCE_VIEWS: Final[tuple[SequenceView, ...]] = (
    SequenceView(
        "user_items",
        "user_id",
        "Items that a user clicked, put into the cart, favoured or ordered.",
        actions=("click", "cart", "favor", "order"),
        collects="item_id",
        elements=("item_id", "room_id", "action", "category", "gap", "stay"),
        length=50,
        lookback_hours=168,
    ),
    SequenceView(
        "user_rooms",
        "user_id",
        "Live rooms, or hosts of items, that a user went to or followed.",
        actions=("click", "follow"),
        collects="room_id",
        elements=("room_id", "action", "category", "gap", "stay"),
        length=20,
        lookback_hours=168,
    ),
    SequenceView(
        "room_core_items",
        "room_id",
        "A room's core products, past and present, by when each was last declared.",
        actions=(CORE,),
        collects="item_id",
        elements=_OFFER,
        length=20,
        lookback_hours=None,
        once=True,
    ),
    SequenceView(
        "room_live_items",
        "room_id",
        "Products that a room explained in the last 30 minutes.",
        actions=(EXPLAIN,),
        collects="item_id",
        elements=_OFFER,
        length=5,
        lookback_hours=24,
        ended_minutes=30,
    ),
)


def _behaviour() -> tuple[SequenceView, ...]:
    return tuple(view for view in SEQUENCE_VIEWS if view.key == "user_id")


BEHAVIOUR_ACTIONS: Final[tuple[str, ...]] = tuple(
    sorted({STAY, *(action for view in _behaviour() for action in view.actions)})
)
"""What table ``behaviour`` holds."""

MAX_LOOKBACK_HOURS: Final = max(view.lookback_hours or 0 for view in _behaviour())
