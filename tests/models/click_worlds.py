"""Small worlds of clicks in which the true difference of two rankers is known exactly.

A world has some kinds of requests, each with a slate whose items attract by given probabilities. A
user clicks an item when it attracts and its position is examined, independently of the others: the
position-based model (Craswell et al., An Experimental Comparison of Click Position-Bias Models,
WSDM 2008). So every pattern of clicks on a slate has a known probability, and the expected NDCG is
a sum over all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models import metrics

ITEMS, K = 6, 3
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class World:
    """Click probabilities (T, ITEMS) of T kinds of requests, and two rankers' scores of them."""

    clicks: Floats
    scores: tuple[Floats, Floats]

    def difference(self) -> float:
        """The second ranker's expected NDCG@3 minus the first's, over the requests that count."""
        bits = np.arange(2**ITEMS)[:, None] >> np.arange(ITEMS)
        patterns = (bits & 1).astype(np.float64)
        chances = np.prod(
            np.where(patterns == 1, self.clicks[:, None], 1 - self.clicks[:, None]), axis=2
        )
        kinds = np.repeat(np.arange(len(self.clicks)), len(patterns))
        labels = np.tile(patterns, (len(self.clicks), 1))
        values = self._differences(labels, kinds)
        counted = ~np.isnan(values)
        return float(np.average(values[counted], weights=chances.ravel()[counted]))

    def sample(self, requests: int, rng: np.random.Generator) -> Floats:
        """Differences (requests,) of as many requests that came; NaN where one does not count."""
        kinds = rng.integers(0, len(self.clicks), requests)
        labels = (rng.random((requests, ITEMS)) < self.clicks[kinds]).astype(np.float64)
        return self._differences(labels, kinds)

    def _differences(self, labels: Floats, kinds: npt.NDArray[np.int64]) -> Floats:
        groups = metrics.groups_of_sizes(np.full(len(labels), ITEMS))
        first, second = (
            metrics.ndcg_at_k(labels.ravel(), scores[kinds].ravel(), groups, K).values
            for scores in self.scores
        )
        return second - first


def drawn(rng: np.random.Generator, kinds: int = 40) -> World:
    """A world: how much items attract, how far users look, how well two rankers know, whether one
    of them ties items are all drawn."""
    attract = rng.beta(rng.uniform(0.3, 2), rng.uniform(1, 6), (kinds, ITEMS))
    examined = (1.0 + np.arange(ITEMS)) ** -rng.uniform(0, 1.5)
    known = np.log(attract / (1 - attract) + 1e-6)
    first, second = (known + rng.uniform(0.2, 3) * rng.normal(size=known.shape) for _ in range(2))
    if rng.random() < 0.5:
        second = np.round(second / 2)
    return World(attract * examined, (first, second))


def covered(rng: np.random.Generator, requests: int, level: float, resamples: int) -> bool:
    """Whether the interval of a sample of a drawn world holds its true difference."""
    world = drawn(rng)
    differences = world.sample(requests, rng)
    seed = int(rng.integers(2**31))
    interval = metrics.paired_bootstrap(differences, seed, resamples, level)
    return interval.low <= world.difference() <= interval.high
