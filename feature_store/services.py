"""Feature services: which of the features a model, or another reader, is served.

A service is data: names of feature views and entities, and the columns of the request. The columns
that it resolves to, and their order, follow from ``views``, so that training, history, the newest
features and the check of what was served all mean the same columns by one name.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from feature_store.embedding_views import (
    EMBEDDING_VIEWS,
    SIMILARITIES,
    SPACE,
    embedding_views,
)
from feature_store.sequence_views import SEQUENCE_VIEWS, SequenceView
from feature_store.views import (
    ATTRIBUTES,
    VIEWS,
    AttributeView,
    FeatureView,
    dense_columns,
    sparse_columns,
    window_name,
)

__all__ = ["REQUEST_COLUMNS", "SERVICES", "FeatureService", "ServiceError", "feature_service"]


class ServiceError(ValueError):
    """No such feature service, or one that names what is not declared."""


def _of_the_request() -> tuple[str, ...]:
    behaviour = {column for view in VIEWS for column in view.sample_columns()}
    attributes = {c for view in ATTRIBUTES for c in (*view.dense(), *view.sparse())}
    every = (*(name for name, _ in sparse_columns()), *dense_columns())
    return tuple(c for c in every if c not in behaviour and c not in attributes)


REQUEST_COLUMNS: Final = _of_the_request()
"""Feature columns that no key tells: what the request brings, and what its time says."""


@dataclass(frozen=True)
class FeatureService:
    """A named choice of features.

    Attributes:
        views: names of feature views.
        attributes: entities whose attributes are served.
        request: columns among ``REQUEST_COLUMNS``.
        windows: names of the windows served, such as ``24h``; None for all of a view's. What has
            no window, as the age of the last click, is always served.
        sequences: names of sequence views; their lists are no columns of :meth:`columns`.
        vectors: names of embedding views, and ``similarities`` of what is compared; both are read
            beside :meth:`columns`, from the day before.

    Raises:
        ServiceError: for a name that ``views`` or ``sequence_views`` does not declare.
    """

    name: str
    description: str
    owner: str
    views: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()
    request: tuple[str, ...] = ()
    windows: tuple[str, ...] | None = None
    sequences: tuple[str, ...] = ()
    vectors: tuple[str, ...] = ()
    similarities: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        windows = {window_name(w) for view in VIEWS for w in view.windows}
        for what, given, known in (
            ("feature views", self.views, [view.name for view in VIEWS]),
            ("entities with attributes", self.attributes, [view.entity for view in ATTRIBUTES]),
            ("request columns", self.request, REQUEST_COLUMNS),
            ("windows", self.windows or (), windows),
            ("sequence views", self.sequences, [view.name for view in SEQUENCE_VIEWS]),
            ("embedding views", self.vectors, [view.name for view in EMBEDDING_VIEWS]),
            ("similarities", self.similarities, [one.name for one in SIMILARITIES]),
        ):
            unknown = sorted(set(given) - set(known))
            if unknown:
                raise ServiceError(
                    f"feature service {self.name!r} names {what} {unknown}, which are not "
                    f"declared; there are {sorted(known)}"
                )

    def feature_views(self) -> tuple[FeatureView, ...]:
        """The declarations behind ``views``, in the order of ``VIEWS``."""
        return tuple(view for view in VIEWS if view.name in self.views)

    def attribute_views(self) -> tuple[AttributeView, ...]:
        """The declarations behind ``attributes``, in the order of ``ATTRIBUTES``."""
        return tuple(view for view in ATTRIBUTES if view.entity in self.attributes)

    def sequence_views(self) -> tuple[SequenceView, ...]:
        """The declarations behind ``sequences``, in the order of ``SEQUENCE_VIEWS``."""
        return tuple(view for view in SEQUENCE_VIEWS if view.name in self.sequences)

    def served(self, view: FeatureView) -> tuple[str, ...]:
        """The columns of ``view`` that are served, in the view's order."""
        if self.windows is None:
            return view.sample_columns()
        left_out = {window_name(w) for w in view.windows} - set(self.windows)
        return tuple(c for c in view.sample_columns() if left_out.isdisjoint(c.split("_")))

    def dense(self) -> tuple[str, ...]:
        """The dense columns, in the order of ``dense_columns``."""
        chosen = self._chosen()
        return tuple(column for column in dense_columns() if column in chosen)

    def sparse(self) -> tuple[tuple[str, int], ...]:
        """The categorical columns with their buckets, in the order of ``sparse_columns``."""
        chosen = self._chosen()
        return tuple(pair for pair in sparse_columns() if pair[0] in chosen)

    def columns(self) -> tuple[str, ...]:
        """Every feature column: the categorical ones, then the dense."""
        return (*(name for name, _ in self.sparse()), *self.dense())

    def embedding_columns(self) -> tuple[str, ...]:
        """What is read of node embeddings: vectors, their space if there are any, similarities."""
        space = (SPACE,) if self.vectors else ()
        return (*self.vectors, *space, *self.similarities)

    def key_columns(self) -> tuple[str, ...]:
        """The key columns that a request needs, each once."""
        behaviour = (key for view in self.feature_views() for key in view.keys)
        attributes = (view.key for view in self.attribute_views())
        nodes = (view.key for view in embedding_views(self.vectors, self.similarities))
        return tuple(dict.fromkeys((*behaviour, *attributes, *nodes)))

    def _chosen(self) -> frozenset[str]:
        behaviour = (column for view in self.feature_views() for column in self.served(view))
        attributes = (c for v in self.attribute_views() for c in (*v.dense(), *v.sparse()))
        return frozenset((*behaviour, *attributes, *self.request))


def _keyed_by(key: str) -> Mapping[str, tuple[str, ...]]:
    """The views and the attributes that ``key`` alone finds."""
    return {
        "views": tuple(view.name for view in VIEWS if view.keys == (key,)),
        "attributes": tuple(view.entity for view in ATTRIBUTES if view.key == key),
    }


_RANKING: Final = FeatureService(
    "ranking",
    "Everything that is known of a user, what is shown to them, and the request.",
    "ranking",
    views=tuple(view.name for view in VIEWS),
    attributes=tuple(view.entity for view in ATTRIBUTES),
    request=REQUEST_COLUMNS,
)
_DEEP_RANKING: Final = replace(
    _RANKING,
    name="deep_ranking",
    description="What `ranking` serves, and what users did and rooms offer, in order.",
    sequences=tuple(view.name for view in SEQUENCE_VIEWS),
)
_NEAR: Final = tuple(one.name for one in SIMILARITIES)

_DECLARED: Final = (
    _RANKING,
    _DEEP_RANKING,
    replace(
        _RANKING,
        name="graph_ranking",
        description="What `ranking` serves, and how near what is shown is to the user in "
        "yesterday's graph.",
        similarities=_NEAR,
    ),
    replace(
        _DEEP_RANKING,
        name="deep_graph_ranking",
        description="What `deep_ranking` serves, with the nodes' vectors and similarities of the "
        "day before.",
        vectors=tuple(view.name for view in EMBEDDING_VIEWS),
        similarities=_NEAR,
    ),
    FeatureService(
        "item_statistics",
        "How an item did with everybody, and what it is: for retrieval, caches and reports.",
        "ranking",
        **_keyed_by("item_id"),
    ),
    FeatureService(
        "user_profile",
        "What a user did, and who they are, whatever is shown to them.",
        "ranking",
        **_keyed_by("user_id"),
    ),
)

SERVICES: Final[Mapping[str, FeatureService]] = {service.name: service for service in _DECLARED}


def feature_service(name: str) -> FeatureService:
    """The declared service ``name``.

    Raises:
        ServiceError: when there is none, with those that there are.
    """
    if name not in SERVICES:
        raise ServiceError(f"no feature service {name!r}; there are {sorted(SERVICES)}")
    return SERVICES[name]
