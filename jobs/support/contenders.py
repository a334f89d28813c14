"""Who is judged: registered versions, and baselines that need no training beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feature_store import hours as hr
from feature_store.tables import Store
from feature_store.views import VIEWS, window_name
from jobs.support.promotions import champion_before
from jobs.support.summary import RefusedError
from models import FeatureSpec, Ranker
from models.registry import Registry, Version

__all__ = [
    "BASELINES", "POPULARITY", "Contender", "Scores", "baselines", "champions", "contender",
    "unregistered",
]  # fmt: skip

Scores = npt.NDArray[np.float64]
ByLabel = Mapping[str, Scores]

POPULARITY: Final = "popularity"
_LAST_HOUR: Final = "popularity_1h"
_RANDOM: Final = "random"
BASELINES: Final = (POPULARITY, _LAST_HOUR, _RANDOM)
"""Roles, and names, of what needs no training."""

_MINUTES: Final = 60


@dataclass(frozen=True)
class Contender:
    """One that ranks.

    Attributes:
        score: scores of rows for each of the labels asked for; larger ranks higher.
        reads: columns of the rows that it looks at.
        spec: of a model, what it reads; None for one that is none.
        probabilities: labels for which its scores are probabilities; None where any score in
            [0, 1] is taken for one.
    """

    role: str
    name: str
    version: str
    data_hour: str | None
    score: Callable[[pa.Table, Sequence[str]], ByLabel]
    reads: tuple[str, ...]
    spec: FeatureSpec | None = None
    probabilities: tuple[str, ...] | None = None

    def tells(self, label: str) -> bool:
        """Whether its scores are probabilities of ``label``."""
        return self.probabilities is None or label in self.probabilities


def contender(registry: Registry, role: str, version: Version, hour: str) -> Contender:
    """A registered version as a contender on ``hour`` and what follows it.

    Raises:
        RefusedError: when the version was fitted on ``hour`` or later: nothing scores a model on an
            hour that it has seen; and for what is no ranker.
    """
    number = str(version.version)
    data_hour = _unseen(version.name, number, version.tags["data_hour"], hour)
    model = registry.load(version.name, version.version).model
    if not isinstance(model, Ranker):
        raise RefusedError(
            f"{version.name} version {number} is no ranker, but {type(model).__name__}; name a "
            "model that scores impressions"
        )
    return Contender(role, version.name, number, data_hour, _model_scores(model),
                     model.spec.columns, model.spec, model.probabilities)  # fmt: skip


def unregistered(role: str, model: Ranker, data_hour: str, hour: str) -> Contender:
    """A model at hand, the last hour of whose rows is ``data_hour``, as a contender on ``hour``.

    Raises:
        RefusedError: as :func:`contender`.
    """
    number = f"of {data_hour}"
    _unseen(role, number, data_hour, hour)
    return Contender(role, role, number, data_hour, _model_scores(model),
                     model.spec.columns, model.spec, model.probabilities)  # fmt: skip


def _unseen(name: str, version: str, data_hour: str, hour: str) -> str:
    if data_hour >= hour:
        raise RefusedError(
            f"{name} version {version} has seen {data_hour}; it cannot be judged on {hour}. "
            "Evaluate a version fitted on earlier hours."
        )
    return data_hour


def baselines() -> list[Contender]:
    """What any model has to beat: the target's smoothed CTR over the longest window and over the
    last hour, as the samples knew it, and no order at all.

    ``random`` gives every row one score: metrics are expected values over the orders of ties, so
    its are those of a random order to the last digit, and no draw of it.
    """
    longest = {v.name: window_name(max(v.windows)) for v in VIEWS}
    hour = {v.name: window_name(min(v.windows, key=lambda w: abs(w - _MINUTES))) for v in VIEWS}
    nothing = Contender(_RANDOM, _RANDOM, "-", None, _no_order, (), probabilities=())
    return [_popularity(POPULARITY, longest), _popularity(_LAST_HOUR, hour), nothing]


def _popularity(role: str, windows: Mapping[str, str]) -> Contender:
    item, room = (f"{kind}_ctr_{windows[kind]}" for kind in ("item", "room"))

    def score(table: pa.Table, labels: Sequence[str]) -> ByLabel:
        rooms = pc.equal(table["target_type"], "room")
        rates = pc.fill_null(pc.if_else(rooms, table[room], table[item]), 0)  # unknown: last
        return dict.fromkeys(labels, rates.to_numpy().astype(np.float64))

    return Contender(role, role, "-", None, score, ("target_type", item, room))


def _no_order(table: pa.Table, labels: Sequence[str]) -> ByLabel:
    return dict.fromkeys(labels, np.zeros(table.num_rows))


def champions(store: Store, registry: Registry, name: str, hour: str) -> dict[str, Version]:
    """The champion of the moment before ``hour``, and that of a day earlier, by role."""
    found = {}
    for role, moment in (("champion", hour), ("champion_yesterday", hr.add(hour, -24))):
        number = champion_before(store, name, moment)
        if number is not None:
            found[role] = registry.get(name, int(number))
    return found


def _model_scores(model: Any) -> Callable[[pa.Table, Sequence[str]], ByLabel]:
    """Scores by label: the task's own where the model has it, else its ranking score."""

    def score(table: pa.Table, labels: Sequence[str]) -> ByLabel:
        predicted = model.predict(table)
        ranked = model.combine(predicted)
        return {label: predicted.get(label, ranked) for label in labels}

    return score
