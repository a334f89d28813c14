"""A page with plots of one simulated day."""

from __future__ import annotations

import numpy as np

from feature_store.sources.simulator.day import MarketDay
from jobs.support.page import figures, page
from models.plots import bars_figure, figure_svg, lines_figure, shares_figure

__all__ = ["market_page"]


def market_page(day: MarketDay) -> str:
    """One self-contained HTML page: intensity, funnel, position curve, categories by hour."""
    hours = np.arange(24)
    drawn = (
        lines_figure(
            "Requests by hour", ("local hour", "requests"), hours,
            {"logged": day.requests, "expected": day.expected_requests},
        ),
        bars_figure("Funnel", "events", day.funnel),
        lines_figure(
            "Click rate by position, relative to the first", ("position", "relative rate"),
            day.positions, {"measured, items": day.click_rate, "looked at": day.position_curve},
        ),
        shares_figure(
            "Clicks by category", "local hour", hours, day.categories, day.category_share
        ),
    )  # fmt: skip
    title = f"Simulated marketplace, {day.date}"
    words = (
        f"{day.requests.sum():,.0f} requests, {sum(day.funnel.values()):,} events. The measured "
        "click rate falls faster than the looks: the policy puts what it favours on top."
    )
    return page(title, words, figures(map(figure_svg, drawn)))
