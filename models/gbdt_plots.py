"""Figures of what trees say of single rows, and of how that moves from hour to hour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from matplotlib import colormaps, rc_context
from matplotlib.figure import Figure

from models.gbdt_contributions import Contributions
from models.plots import COLOURS, NAME_LENGTH, entitle, new_figure

__all__ = ["contributions_figure", "importance_history_figure"]

_BINS: Final = 100  # of equal width, in which dots are piled up


def importance_history_figure(
    hours: Sequence[str], shares: Mapping[str, Mapping[str, npt.ArrayLike]]
) -> Figure:
    """Shares of the total gain by hour, a line a column and a panel a task.

    Args:
        hours: H of them, ascending, such as ``2026-11-11T05``.
        shares: by task and column (H,), in the order of the legend; NaN where an hour has none.
    """
    figure = new_figure(len(shares), height=6.0)
    axes = figure.subplots(1, len(shares), squeeze=False)[0]
    times = np.array(hours, dtype="datetime64[h]")
    for panel, (task, columns) in zip(axes, shares.items(), strict=True):
        with rc_context({"date.converter": "concise"}):
            for number, (name, values) in enumerate(columns.items()):
                style = "o-" if number < COLOURS else "s--"
                panel.plot(times, values, style, markersize=4, label=name[:NAME_LENGTH])
        panel.set(title=f"{task}: feature importance by hour", xlabel="hour of the model, UTC")
        panel.set(ylabel="share of total gain")
        panel.set_ylim(bottom=0)
        panel.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2, fontsize="x-small")
    return figure


def contributions_figure(
    found: Mapping[str, Contributions], units: str, rows: str, top: int = 20
) -> Figure:
    """What the ``top`` columns of each task add to the score of single rows: a dot a row, piled up
    where many rows have about the same, in the colour of the column's value.

    Args:
        units: of the contributions.
        rows: which the dots are: the title.
    """
    rows_shown = min(top, max(len(one.features) for one in found.values()))
    figure = new_figure(len(found), height=1.5 + 0.35 * rows_shown)
    figure.set_figwidth(8.5 * len(found))
    entitle(figure, rows)
    axes = figure.subplots(1, len(found), squeeze=False)[0]
    palette = colormaps["coolwarm"].with_extremes(bad="grey")
    for panel, (task, one) in zip(axes, found.items(), strict=True):
        columns = one.top(top)[::-1]
        panel.axvline(0, color="grey", linewidth=1)
        for place, column in enumerate(columns):
            values = one.values[:, column]
            dots = panel.scatter(
                values, place + _piled(values), s=5, c=one.ranks[:, column],
                cmap=palette, vmin=0, vmax=1, plotnonfinite=True, linewidths=0,
            )  # fmt: skip
        names = [one.features[column][:NAME_LENGTH] for column in columns]
        panel.set_yticks(range(len(columns)), names)
        panel.set(title=f"{task}: what features add", xlabel=units)
    bar = figure.colorbar(dots, ax=axes[-1], ticks=[0, 1], aspect=40)
    bar.set_ticklabels(["low", "high"])
    bar.set_label("value of the feature, by rank; grey: missing, or a category")
    return figure


def _piled(values: npt.NDArray[np.float64], height: float = 0.4) -> npt.NDArray[np.float64]:
    """Where to draw points above and below a line, (n,), so that neighbours are beside it in turn:
    at most ``height`` away, where most of them are."""
    low, high = values.min(), values.max()
    bins = ((values - low) / max(high - low, 1e-12) * _BINS).astype(np.int64)
    order = np.argsort(bins, kind="stable")
    starts = np.searchsorted(bins[order], bins[order])
    turn = np.arange(len(values)) - starts
    away = (turn + 1) // 2 * np.where(turn % 2, 1, -1)
    offsets = np.empty(len(values))
    offsets[order] = away / max(np.abs(away).max(), 1) * height
    return offsets
