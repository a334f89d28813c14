"""A page of one evaluation: who ranked an hour how well."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from jobs.support.page import page, table

__all__ = ["POPULARITY", "SHOWN", "Judged", "Scores", "evaluation_page"]

Scores = npt.NDArray[np.float64]

POPULARITY: Final = "popularity"
SHOWN: Final = (
    "ndcg_at_1", "ndcg_at_3", "ndcg_at_5", "ndcg_at_10", "map_at_10", "mrr_at_10", "recall_at_10",
    "auc", "gauc", "normalised_entropy", "expected_calibration_error", "groups",
)  # fmt: skip
_ROLES: Final = ("candidate", "champion", "champion_yesterday", POPULARITY)


@dataclass(frozen=True)
class Judged:
    """One model on one hour and label."""

    role: str
    name: str
    version: str
    data_hour: str | None
    label: str
    metrics: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]]
    groups: npt.NDArray[np.str_]
    ndcg: Scores
    immature: int


def evaluation_page(hour: str, judged: Sequence[Judged], evaluation: str, cut: str) -> str:
    """One self-contained HTML page: the metrics of every model and label on ``hour``."""
    rows = []
    for j in sorted(judged, key=lambda j: (j.label, _ROLES.index(j.role))):
        interval = j.intervals.get("ndcg_at_10")
        shown = "[{:.4f}, {:.4f}]".format(*interval) if interval else "-"
        values = (_number(j.metrics.get(metric)) for metric in SHOWN)
        rows.append([j.label, j.role, j.version, *values, shown, str(j.immature)])
    numbers = (*SHOWN, "NDCG@10, 95 %", "immature rows")
    title = f"{evaluation} evaluation of {hour}"
    return page(
        title,
        f"Labels known before {cut}.",
        table(("label", "role", "version", *numbers), rows, numbers),
    )


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if float(value).is_integer() and value > 1 else f"{value:.4f}"
