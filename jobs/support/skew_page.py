"""What the skew check found: lines for the screen, and a page with a plot."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Final

from feature_store.skew import FeatureSkew
from models.plots import bars_figure, figure_svg

__all__ = ["SHOWN", "skew_lines", "skew_page"]

SHOWN: Final = 20
"""So many features are shown where there is no room for all."""

_NAMES: Final = ("feature", "differ", "mean |difference|", "largest", "only logged",
                 "only recomputed", "rows")  # fmt: skip
_PAGE: Final = """<!doctype html><html lang="en"><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1"><title>{title}</title><style>
:root {{ color-scheme: light dark }} body {{ font: 15px/1.5 system-ui; margin: 2rem }}
table {{ border-collapse: collapse }} td, th {{ padding: .35rem .7rem; text-align: right;
border-bottom: 1px solid #8884 }} td:first-child, th:first-child {{ text-align: left }}
figure {{ margin: 0; background: #fff; border-radius: .5rem; padding: .5rem; max-width: 50rem }}
svg {{ width: 100%; height: auto }}
</style><h1>{title}</h1><p>{words}</p>{figure}<table><tr>{head}</tr>{rows}</table></html>
"""


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
    figure = ""
    worst = {f.feature: float(f.differing) for f in found[:SHOWN] if f.differing}
    if worst:
        drawn = bars_figure("Rows that differ, by feature", "rows", worst)
        figure = f"<figure>{figure_svg(drawn)}</figure>"
    rows = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in _cells(f)) + "</tr>"
        for f in found
    )
    return _PAGE.format(
        title=html.escape(title),
        words=html.escape(words),
        figure=figure,
        head="".join(f"<th>{html.escape(name)}</th>" for name in _NAMES),
        rows=rows,
    )
