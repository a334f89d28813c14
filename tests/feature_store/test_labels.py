"""Labels exist only relative to a cut."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pyarrow as pa
import pytest

from feature_store import hours as hr
from feature_store.labels import LABELS, censored_share, label_column, labelled
from feature_store.schemas import OUTCOMES, TIMESTAMP, optional
from feature_store.sources.base import DEFAULT_WINDOWS

HOUR, CUT = "2026-11-11T05", "2026-11-11T06"
START = hr.start_of(HOUR)
SECOND = dt.timedelta(seconds=1)
MICRO = dt.timedelta(microseconds=1)


def shown(*seconds: float) -> pa.Table:
    """Samples s0, s1, ... shown so many seconds after the start of HOUR."""
    return pa.table(
        {
            "sample_id": pa.array([f"s{i}" for i in range(len(seconds))], pa.string()),
            "event_time": pa.array([START + s * SECOND for s in seconds], TIMESTAMP),
        }
    )


def outcome(
    sample: str, action: str, seconds: float, known: dt.datetime | None = None, value: Any = None
) -> dict[str, Any]:
    at = START + seconds * SECOND
    return {
        "event_id": f"{sample}-{action}-{seconds}",
        "sample_id": sample,
        "action": action,
        "event_time": at,
        "ingested_at": known or at,
        "value": value,
        "attribution": "request",
        "hour": HOUR,
    }


def labels(
    samples: pa.Table,
    *outcomes: dict[str, Any],
    cut: str = CUT,
    windows: dict[str, int] | None = None,
) -> dict[str, list[float | None]]:
    table = pa.Table.from_pylist(list(outcomes), schema=optional(OUTCOMES))
    found = labelled(samples, table, cut, DEFAULT_WINDOWS if windows is None else windows)
    assert found.column_names[: len(samples.column_names)] == samples.column_names
    assert found.num_rows == samples.num_rows
    return {
        name: found[label_column(name)].to_pylist()
        for name in LABELS
        if label_column(name) in found.column_names
    }


@pytest.mark.parametrize(("name", "window"), [
    ("click", 600), ("long_view", 3600), ("stay", 3600), ("follow", 3600), ("conversion", 86400),
    ("interaction", 3600),
])  # fmt: skip
def test_a_label_matures_when_its_own_window_has_closed(name: str, window: int) -> None:
    """Shown a microsecond more than a window before the cut, exactly a window, and at the cut.

    The last instant of a window is in it, and what arrives at the cut is not known before it.
    """
    cut = hr.add(HOUR, 30)
    last = 30 * 3600 - window
    found = labels(shown(last - 1e-6, last, 30 * 3600), cut=cut)
    assert found[name] == [0.0, None, None]


def test_maturity_is_per_action() -> None:
    found = labels(shown(-1, 3100))
    assert found["click"] == [0.0, None]
    assert found["long_view"] == [0.0, None]
    assert found["conversion"] == [None, None]
    assert labels(shown(60))["long_view"] == [None]
    assert labels(shown(60))["click"] == [0.0]


def test_an_immature_label_is_masked_even_if_its_outcome_is_known() -> None:
    """Else the immature that turned positive early would be the only ones to count."""
    found = labels(shown(3500), outcome("s0", "click", 3510))
    assert found["click"] == [None]


def test_outcomes_inside_their_window_count() -> None:
    samples = shown(10, 10, 10, 10)
    found = labels(
        samples,
        outcome("s0", "click", 10),  # the instant it was shown
        outcome("s1", "click", 610),  # the last instant of the window
        outcome("s2", "click", 610.000001),
        outcome("s3", "click", 9.999999),  # before it was shown
    )
    assert found["click"] == [1.0, 1.0, 0.0, 0.0]


def test_only_outcomes_known_before_the_cut_are_used() -> None:
    cut = hr.start_of(CUT)
    found = labels(
        shown(0, 0, 0),
        outcome("s0", "click", 5, known=cut - MICRO),
        outcome("s1", "click", 5, known=cut),
        outcome("s2", "click", 5, known=cut + 60 * SECOND),
    )
    assert found["click"] == [1.0, 0.0, 0.0]
    later = labels(shown(0), outcome("s0", "click", 5, known=cut + 60 * SECOND), cut=hr.add(CUT, 1))
    assert later["click"] == [1.0]


def test_a_window_of_zero_is_the_row_itself() -> None:
    windows = {"click": 0, "long_view": 0}
    found = labels(
        shown(3599.999, 3599.999, 3600.5),
        outcome("s0", "click", 3599.999),
        outcome("s1", "click", 3599.9995),  # a moment later: not that row
        windows=windows,
    )
    assert found["click"] == [1.0, 0.0, None]


def test_an_action_that_is_not_declared_has_no_label() -> None:
    found = labels(shown(0), outcome("s0", "order", 5), windows={"click": 600})
    assert set(found) == {"click"}


def test_a_cancelled_order_is_no_conversion() -> None:
    cut = hr.add(HOUR, 25)
    found = labels(
        shown(0, 0, 0, 0),
        outcome("s0", "order", 60),
        outcome("s1", "order", 60),
        outcome("s1", "cancel", 600),
        outcome("s2", "order", 60),
        outcome("s2", "order", 90),
        outcome("s2", "cancel", 600),  # one of two
        outcome("s3", "cancel", 600),  # of an order that was never seen
        cut=cut,
    )
    assert found["conversion"] == [1.0, 0.0, 1.0, 0.0]
    undeclared = {"order": 86400}
    kept = labels(
        shown(0), outcome("s0", "order", 60), outcome("s0", "cancel", 600), cut=cut,
        windows=undeclared,
    )  # fmt: skip
    assert kept["conversion"] == [1.0], "a source without cancellations has none to apply"


def test_stay_is_summed_and_not_counted() -> None:
    found = labels(
        shown(0, 0, 0),
        outcome("s0", "stay", 5, value=2.5),
        outcome("s0", "stay", 9, value=4.0),
        outcome("s1", "stay", 5, value=None),
        outcome("s2", "stay", 3601, value=100.0),
        cut=hr.add(CUT, 1),
    )
    assert found["stay"] == [6.5, 0.0, 0.0]


def test_any_of_several_actions_is_enough() -> None:
    samples = shown(0, 0, 0, 0)
    found = labels(
        samples, outcome("s0", "like", 5), outcome("s1", "share", 5), outcome("s1", "comment", 9),
        outcome("s2", "click", 5), cut=hr.add(CUT, 1),
    )  # fmt: skip
    assert found["interaction"] == [1.0, 1.0, 0.0, 0.0]


def test_of_several_actions_each_has_its_own_window() -> None:
    """Those that the source does not declare do not count; the longest window decides when."""
    windows = {"like": 60, "share": 2 * 3600}
    samples = shown(0, 0, 0)
    given = (outcome("s0", "like", 61), outcome("s1", "share", 61), outcome("s2", "comment", 5))
    open_still = labels(samples, *given, windows=windows, cut=hr.add(HOUR, 2))
    assert open_still["interaction"] == [None, None, None]
    found = labels(samples, *given, windows=windows, cut=hr.add(HOUR, 3))
    assert found == {"interaction": [0.0, 1.0, 0.0]}


def test_what_can_still_be_undone_is_immature() -> None:
    windows = {"order": 3600, "cancel": 2 * 3600}
    bought = outcome("s0", "order", 60)
    assert labels(shown(0), bought, windows=windows, cut=hr.add(HOUR, 2))["conversion"] == [None]
    later = labels(shown(0), bought, windows=windows, cut=hr.add(HOUR, 3))
    assert later["conversion"] == [1.0]


def test_an_outcome_known_late_is_a_later_cuts() -> None:
    """It happened inside its window, and arrived after both the window's end and the cut."""
    late = outcome("s0", "click", 5, known=hr.start_of(CUT) + SECOND)
    assert labels(shown(0), late)["click"] == [0.0]
    assert labels(shown(0), late, cut=hr.add(CUT, 1))["click"] == [1.0]


def test_the_censored_share_is_counted_by_hour_and_label() -> None:
    seconds = (-2000, -1900, -1800, 0, 10, 3000, 3100)  # three of the hour before, four of HOUR
    table = shown(*seconds).append_column("hour", pa.array([hr.add(HOUR, -1)] * 3 + [HOUR] * 4))
    windows = {"click": 600, "long_view": 3600, "order": 86400}
    found = labelled(table, pa.Table.from_pylist([], schema=optional(OUTCOMES)), CUT, windows)
    assert censored_share(found).to_pylist() == [
        {"hour": hr.add(HOUR, -1), "rows": 3, "click": 0.0, "long_view": 0.0, "conversion": 1.0},
        {"hour": HOUR, "rows": 4, "click": 0.5, "long_view": 1.0, "conversion": 1.0},
    ]


def test_several_clicks_are_one_and_foreign_outcomes_are_none() -> None:
    found = labels(
        shown(0, 0),
        outcome("s0", "click", 5),
        outcome("s0", "click", 6),
        outcome("elsewhere", "click", 5),
    )
    assert found["click"] == [1.0, 0.0]


def test_no_outcomes_and_no_samples() -> None:
    assert labels(shown(0))["click"] == [0.0]
    assert labels(shown(), outcome("s0", "click", 5))["click"] == []
