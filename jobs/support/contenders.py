"""Who is judged: registered versions, and popularity beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from feature_store import hours as hr
from feature_store.tables import Store
from feature_store.views import VIEWS, window_name
from jobs.support.evaluation_page import POPULARITY, Scores
from jobs.support.promotions import champion_before
from jobs.support.summary import RefusedError
from models import FeatureSpec, Ranker
from models.registry import Registry, Version

__all__ = ["Contender", "champions", "contender", "popularity", "unregistered"]

ByLabel = Mapping[str, Scores]

_LONGEST: Final = {
    view.name: f"{view.name}_ctr_{window_name(max(view.windows))}"
    for view in VIEWS
    if view.name in ("item", "room")
}
"""By kind of target its CTR over the longest window."""


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
            hour that it has seen.
    """
    number = str(version.version)
    data_hour = _unseen(version.name, number, version.tags["data_hour"], hour)
    model = registry.load(version.name, version.version).model
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


def popularity() -> Contender:
    """The target's smoothed CTR over the longest window: what an hour's samples knew of it."""
    reads = ("target_type", *_LONGEST.values())
    return Contender(POPULARITY, POPULARITY, "-", None, _popularity, reads)


def champions(store: Store, registry: Registry, name: str, hour: str) -> dict[str, Version]:
    """The champion of the moment before ``hour``, and that of a day earlier, by role."""
    found = {}
    for role, moment in (("champion", hour), ("champion_yesterday", hr.add(hour, -24))):
        number = champion_before(store, name, moment)
        if number is not None:
            found[role] = registry.get(name, int(number))
    return found


def _popularity(table: pa.Table, labels: Sequence[str]) -> ByLabel:
    rooms = pc.equal(table["target_type"], "room")
    score = pc.if_else(rooms, table[_LONGEST["room"]], table[_LONGEST["item"]])
    return dict.fromkeys(labels, score.to_numpy().astype(np.float64))


def _model_scores(model: Any) -> Callable[[pa.Table, Sequence[str]], ByLabel]:
    """Scores by label: the task's own where the model has it, else its ranking score."""

    def score(table: pa.Table, labels: Sequence[str]) -> ByLabel:
        predicted = model.predict(table)
        ranked = model.combine(predicted)
        return {label: predicted.get(label, ranked) for label in labels}

    return score
