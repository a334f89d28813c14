"""Reports of evaluations that never were: a full one and the smallest one."""

from __future__ import annotations

import numpy as np

from feature_store import hours as hr
from jobs.support.report import (
    Board,
    CalibrationLine,
    CheckLine,
    Difference,
    ExposureLine,
    HourLine,
    Report,
    SegmentLine,
)

ROLES = (
    "candidate", "champion", "champion_yesterday", "popularity", "popularity_1h", "random",
)  # fmt: skip
LABELS = ("click", "long_view", "order")
LEVEL = dict(zip(ROLES, (0.652, 0.647, 0.641, 0.585, 0.598, 0.452), strict=True))
RATE = {"click": 0.062, "long_view": 0.021, "order": 0.004}
LEARNED = ROLES[:3]
DIMENSIONS = {
    "lifecycle": ("new", "returning"),
    "hour_of_day": tuple(f"{hour:02}" for hour in range(24)),
    "surface": ("home_feed", "search_results", "live_room", "product_page_recommendations"),
    "category": tuple(f"category_{number}" for number in range(12)),
    "history": ("none", "1 to 4", "5 to 19", "20 and more"),
}


def full_report() -> Report:
    """Six models on three labels, a day that is judged after two that were."""
    rng = np.random.default_rng(7)
    judged = hr.hour_range("2026-11-11T00", "2026-11-11T23")
    history = hr.hour_range("2026-11-09T00", "2026-11-10T23")
    return Report(
        title="Daily evaluation of 2026-11-11", evaluation="daily", hours=tuple(judged),
        cut="2026-11-12T06", time_zone="Asia/Shanghai", roles=ROLES, labels=LABELS,
        reference="champion", rows=1_284_377,
        board=[_board(role, label) for label in LABELS for role in reversed(ROLES)],
        hourly=_hours(rng, judged), history=_hours(rng, history), segments=_segments(rng),
        worst="candidate does worst against champion on order where surface is live_room: "
        "-0.0121 [-0.0203, -0.0039].",
        calibration=_calibration(rng), exposure=_exposure(), checks=_checks(),
        lineage=(
            ("hours", "2026-11-11T00 to 2026-11-11T23"), ("samples", "snapshot 7391846221034"),
            ("features", "user_1h 5512093, item_1h 5512094, user_item_7d 5512101"),
            ("configuration", "conf/simulator.yaml, sha256 " + "9f" * 32),
        ),
        notes=("Labels of the last 2 hours were still open for 3.1 % of the groups.",
               "champion served 3 versions on this day."),
    )  # fmt: skip


def tiny_report() -> Report:
    """Two models on one label in one hour, and nothing else."""
    return Report(
        title="Hourly evaluation of 2026-11-11T05", evaluation="hourly",
        hours=("2026-11-11T05",), cut="2026-11-11T06", time_zone="UTC",
        roles=ROLES[:2], labels=LABELS[:1], reference="champion", rows=812,
        board=[_board(role, "click") for role in ROLES[:2]],
        hourly=_hours(np.random.default_rng(3), ["2026-11-11T05"], ROLES[:2], LABELS[:1]),
        history=(), segments=(), worst="", calibration=(), exposure=(), checks=(), lineage=(),
    )  # fmt: skip


def _board(role: str, label: str) -> Board:
    ndcg = LEVEL[role] - 0.03 * LABELS.index(label)
    gap = LEVEL["candidate"] - LEVEL[role]
    probabilities = {
        "log_loss": 0.21, "normalised_entropy": 0.87, "expected_calibration_error": 0.0042,
    }  # fmt: skip
    return Board(
        role=role, name="gbdt_ranker" if role in LEARNED else role,
        versions={"candidate": ("132",), "champion": ("129", "130", "131")}.get(role, ()),
        label=label,
        metrics={
            "ndcg_at_1": ndcg - 0.2, "ndcg_at_5": ndcg - 0.06, "ndcg_at_10": ndcg,
            "map_at_10": ndcg - 0.1, "mrr_at_10": ndcg - 0.05, "recall_at_10": ndcg + 0.2,
            "auc": ndcg + 0.09, "gauc": ndcg + 0.05, "groups": 41_022.0,
            **(probabilities if role in LEARNED else {}),
        },
        low=ndcg - 0.004, high=ndcg + 0.004,
        difference=None if role == "candidate" else Difference(
            role, gap, gap - 0.003, gap + 0.003, 0.0004 if gap > 0.01 else 0.021, 0.0041,
        ),
        immature=1311,
    )  # fmt: skip


def _hours(
    rng: np.random.Generator,
    hours: list[str],
    roles: tuple[str, ...] = ROLES,
    labels: tuple[str, ...] = LABELS,
) -> list[HourLine]:
    lines = []
    for label in labels:
        for hour in hours:
            night = 0.012 * np.cos(int(hour[-2:]) / 24 * 2 * np.pi)
            for role in roles:
                ndcg = LEVEL[role] - 0.03 * LABELS.index(label) + night + rng.normal(0, 0.004)
                lines.append(HourLine(
                    role, label, hour, "131", ndcg, ndcg - 0.013, ndcg + 0.013, ndcg + 0.1, 1709,
                ))  # fmt: skip
    return lines


def _segments(rng: np.random.Generator) -> list[SegmentLine]:
    return [
        _segment(rng, dimension, value, role, label)
        for dimension, values in DIMENSIONS.items()
        for value in values for label in LABELS for role in ROLES
    ]  # fmt: skip


def _segment(
    rng: np.random.Generator, dimension: str, value: str, role: str, label: str
) -> SegmentLine:
    gap = float(LEVEL[role] - LEVEL["champion"] + rng.normal(0, 0.005))
    half = float(rng.uniform(0.002, 0.012))
    ndcg = LEVEL["champion"] + gap
    difference = Difference(
        "champion", gap, gap - half, gap + half, 0.01 if abs(gap) > half else 0.4
    )
    return SegmentLine(
        dimension, value, role, label, int(rng.integers(800, 90_000)), int(rng.integers(60, 4000)),
        ndcg, ndcg - half, ndcg + half, RATE[label], RATE[label] * 1.03,
        None if role == "champion" else difference,
    )  # fmt: skip


def _calibration(rng: np.random.Generator) -> list[CalibrationLine]:
    lines = []
    for label in LABELS:
        for role in LEARNED:
            for number in range(10):
                told = RATE[label] * 0.1 * 1.6**number
                seen = told * (1 + rng.normal(0, 0.08))
                lines.append(CalibrationLine(role, label, 128_437, told, seen))
    return lines


def _exposure() -> list[ExposureLine]:
    return [
        ExposureLine(role, kind, 0.71, 0.182, None if kind == "host" else 0.175, 0.633, 1.84)
        for kind in ("item", "host") for role in ROLES
    ]  # fmt: skip


def _checks() -> list[CheckLine]:
    names = (
        "a column is shuffled", "rows in another order", "price doubled", "an unknown category",
        "everything missing", "an hour later", "position changed", "same rows twice",
    )  # fmt: skip
    levels = ("pass", "pass", "fail", "pass", "pass", "skip", "pass", "pass")
    return [
        CheckLine(
            name, f"{name.capitalize()}, for 500 requests.", level, "scores fall, or stay",
            "" if level == "skip" else "scores rise in 7.2 % of the rows",
            "request r19, item i204: 0.0412 to 0.0533" if level == "fail" else "",
        )
        for name, level in zip(names, levels, strict=True)
    ]  # fmt: skip
