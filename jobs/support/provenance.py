"""What a model was trained on, as the registry keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
import pyarrow as pa

from feature_store import hours as hr
from feature_store.labels import censored_share
from feature_store.training_set import Recipe, content_digest
from models.plots import lines_figure

__all__ = ["Provenance"]


@dataclass(frozen=True)
class Provenance:
    """What a model was fitted on: the recipe of its rows, their digest, and what is still open.

    ``digest`` is how the digest was made, where it is not that of a table; ``missing`` the share of
    rows without each of the node vectors and similarities that are read.
    """

    recipe: Recipe
    rows: int
    sha256: str
    censored: pa.Table
    tasks: tuple[str, ...]
    digest: str = ""
    missing: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, recipe: Recipe, table: pa.Table, tasks: tuple[str, ...]) -> Self:
        """What ``table`` was built by ``recipe`` for, to learn ``tasks``."""
        joined = (*recipe.vectors, *recipe.similarities)
        missing = {name: table[name].null_count / max(table.num_rows, 1) for name in joined}
        return cls(recipe, table.num_rows, content_digest(table), censored_share(table), tasks,
                   missing=missing)  # fmt: skip

    def handoff(self) -> dict[str, Any]:
        """What it takes to make the same rows again, and to know that they are the same."""
        made = {"digest": self.digest} if self.digest else {}
        recipe = self.recipe.to_dict()
        return {"recipe": recipe, "rows": self.rows, "sha256": self.sha256, **made}

    def metrics(self) -> dict[str, float]:
        """The immature share of all rows, per task, and what is missing of the graph."""
        rows = self.censored["rows"].to_numpy()
        return {f"missing_{name}": share for name, share in self.missing.items()} | {
            f"censored_{task}": float(np.average(self.censored[task].to_numpy(), weights=rows))
            for task in self.tasks
        }

    def by_hour(self) -> dict[str, dict[str, float]]:
        """The hours in which something is immature, per task."""
        hours = self.censored["hour"].to_pylist()
        shares = {task: self.censored[task].to_pylist() for task in self.tasks}
        return {
            task: {hour: round(share, 4) for hour, share in zip(hours, of, strict=True) if share}
            for task, of in shares.items()
        }

    def figure(self) -> Any:
        """The immature share of every hour."""
        before = [
            hr.difference(self.recipe.cut, hour) for hour in self.censored["hour"].to_pylist()
        ]
        return lines_figure(
            "Labels that are still open at the cut",
            ("hours before the cut", "share of the hour's impressions"),
            before,
            {task: self.censored[task].to_numpy() for task in self.tasks},
        )
