"""A page with plots of one simulated day."""

from __future__ import annotations

import html
from typing import Final

import numpy as np

from feature_store.sources.simulator.day import MarketDay
from models.plots import bars_figure, figure_svg, lines_figure, shares_figure

__all__ = ["market_page"]

_PAGE: Final = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>{title}</title><style>
:root {{ color-scheme: light dark }}
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 90rem; margin: 2rem auto;
  padding: 0 1rem }}
main {{ display: grid; gap: 1rem;
  grid-template-columns: repeat(auto-fit, minmax(min(30rem, 100%), 1fr)) }}
figure {{ margin: 0; background: #fff; border-radius: .5rem; padding: .5rem }}
svg {{ width: 100%; height: auto }}
</style><h1>{title}</h1><p>{words}</p><main>{figures}</main></html>
"""


def market_page(day: MarketDay) -> str:
    """One self-contained HTML page: intensity, funnel, position curve, categories by hour."""
    hours = np.arange(24)
    figures = (
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
    return _PAGE.format(
        title=html.escape(title),
        words=html.escape(words),
        figures="".join(f"<figure>{figure_svg(figure)}</figure>" for figure in figures),
    )
