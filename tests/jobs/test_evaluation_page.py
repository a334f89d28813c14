"""The page of an evaluation: a row per model and label, whatever was measured of it."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from jobs.support.evaluation_page import Judged, evaluation_page

HOUR, CUT = "2026-11-11T05", "2026-11-11T06"
METRICS = {
    "ndcg_at_10": 0.65432, "map_at_10": 0.51, "recall_at_10": 0.9, "auc": 0.7,
    "expected_calibration_error": 0.0123, "groups": 1234.0,
}  # fmt: skip


def judged(role: str, label: str, **changes: Any) -> Judged:
    values = {
        "name": "gbdt_ranker", "version": "3", "data_hour": HOUR, "metrics": METRICS,
        "intervals": {"ndcg_at_10": (0.64, 0.67)}, "groups": np.zeros(0, np.str_),
        "ndcg": np.zeros(0), "immature": 7, **changes,
    }  # fmt: skip
    return Judged(role=role, label=label, **values)


def test_the_page_lists_labels_and_roles_in_order() -> None:
    found = [
        judged("popularity", "click", version="-"), judged("candidate", "long_view"),
        judged("champion", "click", version="<2>"), judged("candidate", "click"),
    ]  # fmt: skip
    page = evaluation_page(HOUR, found, "hourly", CUT)
    assert f"hourly evaluation of {HOUR}" in page
    assert f"Labels known before {CUT}." in page
    rows = re.findall(r"<tr class=\"\">(.*?)</tr>", page)
    cells = [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in rows]
    assert [row[:3] for row in cells] == [
        ["click", "candidate", "3"], ["click", "champion", "&lt;2&gt;"],
        ["click", "popularity", "-"], ["long_view", "candidate", "3"],
    ]  # fmt: skip
    assert cells[0][3:] == [
        "-",
        "-",
        "-",
        "0.6543",
        "0.5100",
        "-",
        "0.9000",
        "0.7000",
        "-",
        "-",
        "0.0123",
        "1,234",
        "[0.6400, 0.6700]",
        "7",
    ]


def test_a_model_without_mature_groups_has_a_row() -> None:
    nothing = {"metrics": {"groups": 0.0}, "intervals": {}}
    page = evaluation_page(HOUR, [judged("candidate", "order", **nothing)], "offline", CUT)
    assert "nan" not in page
    assert page.count(">-</td>") == 12
