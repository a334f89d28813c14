"""Node embeddings as features of a sample: whose vectors it has, and which pairs are compared.

The vectors are those of the business day before the sample's ``as_of``, so that they know nothing
that arrived after it. Adding a node's vector or a similarity is one entry below.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

__all__ = [
    "EMBEDDING_VIEWS",
    "SIMILARITIES",
    "SPACE",
    "EmbeddingView",
    "Similarity",
    "embedding_views",
]

SPACE: Final = "embedding_version"
"""The column that says in which space a row's vectors are; null where the day has none."""


@dataclass(frozen=True)
class EmbeddingView:
    """The vector of the node that a key names.

    Attributes:
        name: the list column.
        node_type: of ``node_embeddings``.
        key: the sample's column that holds the node's id.
    """

    name: str
    node_type: str
    key: str
    description: str


@dataclass(frozen=True)
class Similarity:
    """The cosine of two nodes' vectors, null where one of them has none.

    Cosines can be compared across spaces, since both ends are always of one.
    """

    name: str
    left: EmbeddingView
    right: EmbeddingView
    description: str


_USER: Final = EmbeddingView("user_vector", "user", "user_id", "the user's node")
_ITEM: Final = EmbeddingView("item_vector", "item", "item_id", "the item's node")
_ROOM: Final = EmbeddingView("room_vector", "room", "room_id", "the room's node")

EMBEDDING_VIEWS: Final[tuple[EmbeddingView, ...]] = (_USER, _ITEM, _ROOM)
SIMILARITIES: Final[tuple[Similarity, ...]] = (
    Similarity("user_item_similarity", _USER, _ITEM, "how near the item is to the user"),
    Similarity("user_room_similarity", _USER, _ROOM, "how near the room is to the user"),
)


def embedding_views(vectors: Sequence[str], similarities: Sequence[str]) -> list[EmbeddingView]:
    """The views behind the named vectors and both ends of the named similarities, each once."""
    compared = [one for one in SIMILARITIES if one.name in similarities]
    ends = {end.name for one in compared for end in (one.left, one.right)}
    return [view for view in EMBEDDING_VIEWS if view.name in ends or view.name in vectors]
