"""What the skew check found: lines for the screen, and a page with a plot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from feature_store.skew import FeatureSkew
from jobs.support.page import figures, page, table
from models.plots import bars_figure, figure_svg

__all__ = ["SHOWN", "skew_lines", "skew_page"]

SHOWN: Final = 20
"""So many features are shown where there is no room for all."""

_NAMES: Final = ("feature", "differ", "mean |difference|", "largest", "only logged",
                 "only recomputed", "rows")  # fmt: skip


def _cells(found: FeatureSkew) -> tuple[str, ...]:
    counts = (found.only_logged, found.only_recomputed, found.rows)
    numbers = (f"{found.share:.2%}", f"{found.mean:.4g}", f"{found.largest:.4g}")
    return (found.feature, *numbers, *(f"{count:,}" for count in counts))


def skew_lines(found: Sequence[FeatureSkew]) -> list[str]:
    """The worst features, a line each, under a line of names; then how many are equal."""
    worst = [f for f in found if f.differing][:SHOWN]
    rows = [_NAMES, *(_cells(f) for f in worst)] if worst else []
    widths = [max(len(row[place]) for row in rows) for place in range(len(_NAMES))] if rows else []
    lines = [
        "  ".join(
            cell.ljust(width) if place == 0 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        for row in rows
    ]
    differing = sum(f.differing > 0 for f in found)
    more = f"; the {len(worst)} worst are shown" if differing > len(worst) else ""
    return [*lines, f"{differing} of {len(found)} features differ{more}"]


def skew_page(title: str, words: str, found: Sequence[FeatureSkew]) -> str:
    """One self-contained HTML page: a bar per differing feature, and a table of all."""
    worst = {f.feature: float(f.differing) for f in found[:SHOWN] if f.differing}
    drawn = (
        [figure_svg(bars_figure("Rows that differ, by feature", "rows", worst))] if worst else []
    )
    return page(title, words, figures(drawn), table(_NAMES, map(_cells, found), _NAMES[1:]))
