"""What a day's training of node embeddings did, for a tracker and a page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from models.graph.alignment import Drift
from models.graph.skipgram import Embedded

__all__ = ["EmbeddingReport"]


@dataclass(frozen=True)
class EmbeddingReport:
    """What a day's training did.

    Attributes:
        nodes, edges: of the graph, by type.
        fresh: nodes that yesterday did not know; ``kept``: those that only yesterday knew and that
            still have a vector; ``aged``: those dropped.
        drift: to yesterday's vectors after they were aligned; None without a yesterday.
    """

    nodes: Mapping[str, int]
    edges: Mapping[str, int]
    fresh: int
    kept: int
    aged: int
    drift: Drift | None
    trained: Embedded
    seconds: float

    def metrics(self) -> dict[str, float]:
        """Flat numbers for a tracker."""
        steps = self.trained.seconds
        found = {
            **{f"nodes_{kind}": float(count) for kind, count in self.nodes.items()},
            **{f"edges_{kind}": float(count) for kind, count in self.edges.items()},
            "fresh_nodes": float(self.fresh), "kept_nodes": float(self.kept),
            "aged_nodes": float(self.aged), "fit_seconds": self.seconds,
            "fit_tokens_per_second": self.trained.tokens / (steps["walk"] + steps["train"]),
        }  # fmt: skip
        if self.trained.losses:
            found["fit_loss"] = self.trained.losses[-1]
        if self.drift is not None and self.drift.nodes:
            found |= {"drift_cosine": self.drift.cosine,
                      "drift_neighbours_kept": self.drift.neighbours}  # fmt: skip
        return found
