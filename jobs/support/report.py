"""What the report of an evaluation says, before anybody draws it.

Every part is a line of numbers that know what they are of; ``report_page`` makes a page of them,
and ``evaluate`` the rows of table ``evaluations``. A number that is not known is None.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = [
    "Board",
    "CalibrationLine",
    "CheckLine",
    "Difference",
    "ExposureLine",
    "HourLine",
    "Report",
    "SegmentLine",
    "number",
]


def number(value: float | None) -> float | None:
    """``value``, or None for one that is not finite."""
    return float(value) if value is not None and math.isfinite(value) else None


@dataclass(frozen=True)
class Difference:
    """A model's metric minus another's, paired by group.

    Attributes:
        other: role of the other.
        low, high: of the 95 % interval.
        p_value: two-sided, adjusted for the comparisons that it stands among.
        detectable: the smallest true difference that so many groups would show, 4 times of 5.
    """

    other: str
    value: float | None
    low: float | None
    high: float | None
    p_value: float | None
    detectable: float | None = None


@dataclass(frozen=True)
class Board:
    """A line of the leaderboard: a model on a label, over all hours.

    Attributes:
        role: who it is here: ``candidate``, ``champion``, ``popularity``, or as it was asked for.
        versions: that served the hours, oldest first.
        metrics: by name, as of ``evaluate_ranking``.
        low, high: of the 95 % interval of NDCG@10.
        difference: the candidate's NDCG@10 minus this one's; None for the candidate itself.
        immature: rows left out, because their group's labels were still open.
    """

    role: str
    name: str
    versions: tuple[str, ...]
    label: str
    metrics: Mapping[str, float]
    low: float | None
    high: float | None
    difference: Difference | None
    immature: int


@dataclass(frozen=True)
class HourLine:
    """A model on a label in one hour: NDCG@10 with its 95 % interval, AUC, groups."""

    role: str
    label: str
    hour: str
    version: str
    ndcg: float | None
    low: float | None
    high: float | None
    auc: float | None
    groups: int


@dataclass(frozen=True)
class SegmentLine:
    """A model on a label in one segment.

    Attributes:
        dimension: what rows are told apart by, ``lifecycle`` for instance; ``value`` is theirs.
        difference: to the reference, on the groups of the segment; None for the reference itself.
        observed: rate of the label; ``predicted`` the mean probability told, if it tells one.
    """

    dimension: str
    value: str
    role: str
    label: str
    rows: int
    groups: int
    ndcg: float | None
    low: float | None
    high: float | None
    observed: float | None
    predicted: float | None
    difference: Difference | None


@dataclass(frozen=True)
class CalibrationLine:
    """A bin of predictions of a model for a label: how many, what was told and what came about."""

    role: str
    label: str
    rows: int
    predicted: float
    observed: float


@dataclass(frozen=True)
class ExposureLine:
    """Whom a model would show.

    Attributes:
        kind: of what is shown: ``item``, ``host``.
        gini: of the exposures, 0 (all alike) to 1.
        tail_share: of all exposure that the tail gets; ``tail_share_logged`` is what it had in the
            order that was served, None where positions are not known.
        coverage: share of all there are that are ever among the first.
        popularity_lift: popularity where it shows over popularity of what there was to show.
    """

    role: str
    kind: str
    gini: float | None
    tail_share: float | None
    tail_share_logged: float | None
    coverage: float | None
    popularity_lift: float | None


@dataclass(frozen=True)
class CheckLine:
    """A behavioural check: what was done to the rows, what was expected, and an example.

    Attributes:
        level: ``pass``, ``fail``, or ``skip`` where the rows have nothing to check it on.
    """

    name: str
    about: str
    level: str
    expected: str
    seen: str
    example: str


@dataclass(frozen=True)
class Report:
    """An evaluation.

    Attributes:
        evaluation: ``hourly``, ``offline``, ``daily`` or ``range``.
        roles: in the order they are shown; the first is the one that is judged.
        reference: the role that segments are compared with.
        worst: a sentence about the segment in which it does worst; empty where there is none.
        history: hours before these, by the evaluations that were made of them.
        lineage: names and texts: hours, snapshots, features, configuration.
        notes: sentences about what to read with care.
    """

    title: str
    evaluation: str
    hours: tuple[str, ...]
    cut: str
    time_zone: str
    roles: tuple[str, ...]
    labels: tuple[str, ...]
    reference: str
    rows: int
    board: Sequence[Board]
    hourly: Sequence[HourLine]
    history: Sequence[HourLine]
    segments: Sequence[SegmentLine]
    worst: str
    calibration: Sequence[CalibrationLine]
    exposure: Sequence[ExposureLine]
    checks: Sequence[CheckLine]
    lineage: Sequence[tuple[str, str]]
    notes: Sequence[str] = ()
