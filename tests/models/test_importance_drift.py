"""Gain shares: their distance, how they are kept, and their figure over hours."""

from __future__ import annotations

import doctest

import numpy as np
import pytest

from models import ModelError, importance_drift
from models.gbdt_plots import importance_history_figure
from models.importance_drift import gain_shares, shares_from_text, shares_text, total_variation


def test_shares_add_up_and_trees_without_a_split_have_none() -> None:
    shares = gain_shares({"click": {"a": 3.0, "b": 1.0, "c": 0.0}, "follow": {"a": 0.0}})
    assert shares == {"click": {"a": 0.75, "b": 0.25, "c": 0.0}}


def test_the_distance_is_half_of_what_shares_differ_by() -> None:
    rng = np.random.default_rng(0)
    one, other = rng.dirichlet(np.ones(9), 2)
    mine, theirs = (dict(zip("abcdefghi", s.tolist(), strict=True)) for s in (one, other))
    most = max(
        abs(sum(one[i] - other[i] for i in range(9) if chosen >> i & 1)) for chosen in range(512)
    )
    # Its definition: how far the shares of any set of columns are apart at most.
    assert total_variation(mine, theirs) == pytest.approx(most, abs=1e-12)
    assert total_variation(mine, mine) == 0
    assert total_variation({"a": 1.0}, {"b": 1.0}) == 1
    assert total_variation({"a": 0.4, "b": 0.6}, {"a": 0.4, "c": 0.6}) == pytest.approx(0.6)


def test_shares_come_back_from_their_text() -> None:
    shares = {"click": {"a": 0.1 + 0.2, "b": 0.7}}
    assert shares_from_text(shares_text(shares)) == shares


@pytest.mark.parametrize("text", [
    "", "[]", "{}", '{"schema_version": 2, "gain_shares": {}}',
    '{"schema_version": 1, "gain_shares": {"click": 3}}',
    '{"schema_version": 1, "gain_shares": {"click": {"a": "x"}}}',
])  # fmt: skip
def test_another_text_is_refused(text: str) -> None:
    with pytest.raises(ModelError, match=r"feature_importance\.json holds no gain shares"):
        shares_from_text(text)


def test_the_figure_draws_a_line_a_column_over_hours() -> None:
    hours = ["2026-11-11T03", "2026-11-11T05"]
    shares = {"click": {"a": [0.75, 0.5], "b": [0.25, np.nan]}, "follow": {"a": [1.0, 1.0]}}
    figure = importance_history_figure(hours, shares)
    click, follow = figure.axes
    assert click.get_title() == "click: feature importance by hour"
    assert [line.get_label() for line in click.get_lines()] == ["a", "b"]
    assert click.get_lines()[0].get_ydata().tolist() == [0.75, 0.5]
    assert np.ptp(click.get_lines()[0].get_xdata()) == np.timedelta64(2, "h")
    assert len(follow.get_lines()) == 1
    figure.canvas.draw()


def test_examples_run() -> None:
    assert doctest.testmod(importance_drift).failed == 0
