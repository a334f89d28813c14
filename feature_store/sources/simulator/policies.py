"""Rankers that can be put in charge of the simulated marketplace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.sources.simulator.population import Floats, Ints
from feature_store.sources.simulator.requests import SEARCH
from feature_store.sources.simulator.world import World

__all__ = [
    "Candidates",
    "LoggingPolicy",
    "Policy",
    "PopularityPolicy",
    "RandomPolicy",
    "TruthPolicy",
    "random_policy",
]

_RELEVANCE = 0.25  # of the logging policy, against Gumbel noise of scale 1
_DISPLAY = 0.5


@dataclass(frozen=True)
class Candidates:
    """What a ranker is asked to order: m requests with n candidates each.

    ``target`` are numbers of items, or of rooms where ``rooms`` is true; ``item`` is the target
    itself, or what the room explains. ``there`` is false where a request has fewer candidates.
    ``intent`` belongs to the truth: only :class:`TruthPolicy` may look at it.
    """

    hour: int  # since the epoch
    rooms: bool
    user: Ints  # (m,)
    scene: Ints  # (m,)
    intent: Ints  # (m,)
    target: Ints  # (m, n)
    item: Ints  # (m, n)
    there: npt.NDArray[np.bool_]  # (m, n)


class Policy(Protocol):
    """A ranker. It says how much it favours each candidate; the best come first."""

    name: ClassVar[str]

    def scores(self, candidates: Candidates, rng: np.random.Generator) -> Floats:
        """(m, n) scores; ``rng`` is for exploration, the same for every policy of a seed."""


@dataclass(frozen=True)
class RandomPolicy:
    """Every order is as likely as any other."""

    name: ClassVar[str] = "random"

    def scores(self, candidates: Candidates, rng: np.random.Generator) -> Floats:
        return np.asarray(rng.random(candidates.target.shape))


def random_policy(_world: World) -> RandomPolicy:
    """:class:`RandomPolicy`, made as the others are."""
    return RandomPolicy()


@dataclass(frozen=True)
class LoggingPolicy:
    """What the shop runs at first: a weak and noisy idea of relevance, drawn to what is hot."""

    world: World
    name: ClassVar[str] = "logging"

    def scores(self, candidates: Candidates, rng: np.random.Generator) -> Floats:
        noise = rng.gumbel(size=candidates.target.shape)
        idea = _RELEVANCE * attraction(self.world, candidates)
        if candidates.rooms:
            heat = self.world.display(candidates.hour)[1]
            idea = idea + _DISPLAY * np.log(heat[candidates.target])
        return np.asarray(idea + noise)


@dataclass(frozen=True)
class TruthPolicy:
    """Knows what everybody wants: the best that any ranker of clicks could be."""

    world: World
    name: ClassVar[str] = "truth"

    def scores(self, candidates: Candidates, rng: np.random.Generator) -> Floats:  # noqa: ARG002
        return attraction(self.world, candidates)


@dataclass(frozen=True)
class PopularityPolicy:
    """Smoothed click rates of a log, by target; what it has not seen gets the prior."""

    item_rate: Floats
    room_rate: Floats
    prior: float
    name: ClassVar[str] = "popularity"

    @classmethod
    def from_events(cls, events: pa.Table, weight: float = 20.0) -> PopularityPolicy:
        """The rates of ``events`` (canonical): (clicks + prior * weight) / (shown + weight)."""
        shown, clicked = (
            events.filter(pc.equal(events["action"], action)) for action in ("impression", "click")
        )
        prior = clicked.num_rows / max(shown.num_rows, 1)
        rates = []
        for kind in ("item", "room"):
            counts = [_counts(table, kind) for table in (shown, clicked)]
            size = max(len(count) for count in counts)
            s, c = (np.pad(count, (0, size - len(count))) for count in counts)
            rates.append((c + prior * weight) / (s + weight))
        return cls(rates[0], rates[1], prior)

    def scores(self, candidates: Candidates, rng: np.random.Generator) -> Floats:  # noqa: ARG002
        rate = self.room_rate if candidates.rooms else self.item_rate
        known = candidates.target < len(rate)
        found = rate[np.minimum(candidates.target, len(rate) - 1)]
        return np.where(known, found, self.prior)


def _counts(events: pa.Table, kind: str) -> Ints:
    """Events by the number of their target."""
    mine = events.filter(pc.equal(events["target_type"], kind))["target_id"]
    number = pc.cast(pc.utf8_slice_codeunits(mine, 1), pa.int64()).to_numpy()
    return np.asarray(np.bincount(number, minlength=1), np.int64)


def attraction(world: World, candidates: Candidates) -> Floats:
    """Truth: the logit of a click on each candidate, once looked at; (m, n)."""
    shape = candidates.target.shape
    user, scene, intent = (
        np.broadcast_to(column[:, None], shape)
        for column in (candidates.user, candidates.scene, candidates.intent)
    )
    if candidates.rooms:
        return world.room_attraction(
            user, candidates.target, candidates.item, intent, candidates.hour
        )
    return world.item_attraction(user, candidates.item, intent, scene == SEARCH, candidates.hour)
