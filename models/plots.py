"""Figures for a version's page: feature importance, learning curve, reliability.

Figures are made without pyplot, so nothing global is opened or left open.
"""

from __future__ import annotations

import io
import textwrap
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from models.base import FitReport
from models.metrics import CalibrationCurve, reliability_curve

__all__ = [
    "COLOURS",
    "NAME_LENGTH",
    "STOPPING_ROWS",
    "bars_figure",
    "calibration_figure",
    "compared_figure",
    "degrees_figure",
    "entitle",
    "figure_svg",
    "history_figure",
    "importance_figure",
    "intervals_figure",
    "learning_curve_figure",
    "lines_figure",
    "new_figure",
    "projection_figure",
    "reliability_figure",
    "shares_figure",
    "standard_plots",
    "timelines_figure",
]

STOPPING_ROWS: Final = (
    "Early-stopping rows: nothing was fitted on them, but they chose when to stop"
)
"""Title of what is drawn of them."""

NAME_LENGTH: Final = 60
"""Characters of a column's name that are shown."""
_LETTERS: Final = 11  # of a title, to the inch
COLOURS: Final = 10
"""So many can be told apart."""


def new_figure(panels: int, height: float = 4.0) -> Figure:
    """An empty figure for ``panels`` side by side, ``height`` inches high."""
    figure = Figure(figsize=(6.0 * panels, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def entitle(figure: Figure, words: str) -> None:
    """Put ``words`` above all panels, in as many lines as the figure's width takes."""
    lines = textwrap.fill(words, int(_LETTERS * figure.get_figwidth()))
    figure.suptitle(lines, fontsize="medium")


def importance_figure(report: FitReport, top: int = 20) -> Figure:
    """The ``top`` columns by share of the total gain, one panel a task."""
    figure = new_figure(len(report.importances), height=1.0 + 0.25 * top)
    axes = figure.subplots(1, len(report.importances), squeeze=False)[0]
    for panel, (task, gains) in zip(axes, report.importances.items(), strict=True):
        total = sum(gains.values()) or 1.0
        best = sorted(gains.items(), key=lambda item: (-item[1], item[0]))[:top][::-1]
        panel.barh([name[:NAME_LENGTH] for name, _ in best], [gain / total for _, gain in best])
        panel.set(title=f"{task}: feature importance", xlabel="share of total gain")
    return figure


def learning_curve_figure(report: FitReport) -> Figure:
    """Loss (or what was measured) by round, one panel a task; the dashed line is the round that was
    kept."""
    measure = "log loss" if report.measure == "loss" else report.measure
    figure = new_figure(len(report.curves))
    axes = figure.subplots(1, len(report.curves), squeeze=False)[0]
    for panel, (task, curves) in zip(axes, report.curves.items(), strict=True):
        for name, losses in curves.items():
            marker = "o" if len(losses) == 1 else None
            panel.plot(range(1, len(losses) + 1), losses, marker=marker, label=name)
        panel.axvline(report.rounds[task], linestyle="--", color="grey")
        panel.set(title=f"{task}: learning curve", xlabel="round", ylabel=measure)
        panel.legend()
    return figure


def reliability_figure(
    labels: Mapping[str, npt.ArrayLike], probabilities: Mapping[str, npt.ArrayLike], rows: str
) -> Figure:
    """Predicted against observed rate in ten bins of equal counts, one panel a task.

    Rows whose label is immature must have been left out.

    Args:
        rows: which they are, and what they had to do with the fit: the title.
    """
    curves = {task: reliability_curve(y, probabilities[task]) for task, y in labels.items()}
    return calibration_figure(curves, rows)


def calibration_figure(curves: Mapping[str, CalibrationCurve], title: str) -> Figure:
    """Predicted against observed rate, one panel a task, with the expected calibration error over
    the bins."""
    figure = new_figure(len(curves))
    entitle(figure, title)
    axes = figure.subplots(1, len(curves), squeeze=False)[0]
    for panel, (task, curve) in zip(axes, curves.items(), strict=True):
        top = max([*curve.predicted, *curve.observed, 1e-6])
        panel.plot([0, top], [0, top], linestyle="--", color="grey")
        panel.plot(curve.predicted, curve.observed, marker="o")
        panel.set(
            title=f"{task}: reliability ({int(curve.rows.sum()):,} rows, error {curve.error:.4f})",
            xlabel="mean predicted probability",
            ylabel="observed rate",
        )
    return figure


def lines_figure(
    title: str, axes: tuple[str, str], x: npt.ArrayLike, lines: Mapping[str, npt.ArrayLike]
) -> Figure:
    """Lines over a common x; the first is drawn with markers, the others dashed.

    Args:
        axes: labels of x and y.
    """
    figure = new_figure(1)
    panel = figure.subplots()
    for number, (name, values) in enumerate(lines.items()):
        panel.plot(x, values, "--" if number else "o-", label=name)
    panel.set(title=title, xlabel=axes[0], ylabel=axes[1])
    panel.set_ylim(bottom=0)
    panel.legend()
    return figure


def projection_figure(
    title: str, vectors: npt.NDArray[np.float32], labels: Sequence[str]
) -> Figure:
    """Vectors (N, D) on the two axes along which they differ most, in the colours of their labels.

    Lengths are left out: neighbours are found by cosine.
    """
    unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    _, _, axes = np.linalg.svd(unit - unit.mean(0), full_matrices=False)
    flat = unit @ axes[:2].T
    figure = new_figure(1, height=6.0)
    panel = figure.subplots()
    names, counts = np.unique(labels, return_counts=True)
    shown = names[np.argsort(-counts, kind="stable")][:COLOURS]
    every = np.array(labels)
    others = ~np.isin(every, shown)
    if others.any():
        panel.scatter(flat[others, 0], flat[others, 1], s=4, color="lightgrey", label="others")
    for name in shown:
        mine = flat[every == name]
        panel.scatter(mine[:, 0], mine[:, 1], s=6, label=str(name)[:NAME_LENGTH])
    panel.set(title=title, xticks=[], yticks=[])
    panel.legend(fontsize="x-small", markerscale=2)
    return figure


def bars_figure(title: str, label: str, values: Mapping[str, float]) -> Figure:
    """Horizontal bars on a logarithmic scale, in the given order from the top, with numbers."""
    figure = new_figure(1)
    panel = figure.subplots()
    names = [name for name, value in values.items() if value > 0][::-1]
    bars = panel.barh(names, [values[name] for name in names])
    panel.bar_label(bars, labels=[f"{values[name]:,.0f}" for name in names], padding=3)
    panel.set(title=title, xlabel=label, xscale="log")
    panel.margins(x=0.3)
    return figure


def history_figure(
    title: str,
    times: npt.NDArray[np.datetime64],
    values: npt.ArrayLike,
    allowed: tuple[float, float] | None,
) -> Figure:
    """Values over times in UTC, the last one marked, with what is allowed of it.

    Args:
        values: as many as times; NaN where nothing was measured.
        allowed: from and to, of the last value alone.
    """
    figure = new_figure(1)
    panel = figure.subplots()
    with rc_context({"date.converter": "concise"}):
        panel.plot(times, values, linewidth=1)
    if allowed is not None:
        panel.vlines(times[-1:], *allowed, color="C2", alpha=0.4, linewidth=8, label="allowed")
    panel.plot(times[-1:], np.asarray(values)[-1:], "o", color="C3", label="this hour")
    panel.set(title=title, xlabel="hour, UTC")
    panel.set_ylim(bottom=0)
    panel.legend(loc="lower left")
    return figure


def timelines_figure(
    title: str,
    label: str,
    times: npt.NDArray[np.datetime64],
    lines: Mapping[str, npt.ArrayLike],
    zero: bool = False,
) -> Figure:
    """Lines over common times in UTC, the axis as narrow as the values.

    Args:
        lines: by name as many values as times; NaN leaves a gap.
        zero: draw where nothing differs.
    """
    figure = new_figure(1)
    panel = figure.subplots()
    with rc_context({"date.converter": "concise"}):
        for name, values in lines.items():
            panel.plot(times, values, ".-", linewidth=1, markersize=4, label=name)
    if zero:
        panel.axhline(0.0, color="grey", linestyle="--", linewidth=1)
    panel.set(title=title, xlabel="hour, UTC", ylabel=label)
    panel.legend(fontsize="small")
    return figure


def intervals_figure(
    title: str,
    axes: tuple[str, str],
    x: npt.ArrayLike,
    lines: Mapping[str, Sequence[tuple[float, float, float]]],
) -> Figure:
    """Points with their intervals over a common x, beside one another, and a line at zero.

    Args:
        axes: labels of x and y.
        x: whole numbers.
        lines: by name a mean, a lower and an upper bound for every x; NaN leaves a gap.
    """
    figure = new_figure(1)
    panel = figure.subplots()
    for number, (name, values) in enumerate(lines.items()):
        mean, low, high = np.asarray(values, dtype=np.float64).T
        beside = np.asarray(x, dtype=np.float64) + 0.6 * (number + 0.5) / len(lines) - 0.3
        panel.errorbar(
            beside, mean, [mean - low, high - mean], fmt="o", markersize=3, capsize=2, label=name
        )
    panel.axhline(0.0, color="grey", linestyle="--", linewidth=1)
    panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    panel.set(title=title, xlabel=axes[0], ylabel=axes[1])
    panel.legend(fontsize="small")
    return figure


def compared_figure(
    title: str, label: str, before: Mapping[str, float], now: Mapping[str, float]
) -> Figure:
    """Two horizontal bars a name, in the order of ``now`` from the top."""
    names = list(now)[::-1]
    figure = new_figure(1, height=max(4.0, 1.0 + 0.3 * len(names)))
    panel = figure.subplots()
    places = np.arange(len(names))
    shown = [name[:NAME_LENGTH] for name in names]
    panel.barh(places + 0.2, [now[name] for name in names], 0.4, label="now")
    panel.barh(places - 0.2, [before[name] for name in names], 0.4, label="before")
    panel.set(title=title, xlabel=label, yticks=places, yticklabels=shown)
    panel.legend()
    return figure


def shares_figure(
    title: str, label: str, x: npt.ArrayLike, names: list[str], shares: npt.ArrayLike
) -> Figure:
    """Shares (x, names) that add up to one, stacked."""
    figure = new_figure(1)
    panel = figure.subplots()
    panel.stackplot(np.asarray(x), np.asarray(shares).T, labels=names)
    panel.set(title=title, xlabel=label, ylabel="share", ylim=(0, 1))
    panel.legend(loc="center left", bbox_to_anchor=(1, 0.5), reverse=True)
    return figure


def degrees_figure(
    title: str, degrees: Mapping[str, tuple[npt.ArrayLike, npt.ArrayLike]]
) -> Figure:
    """Complementary cumulative distributions on logarithmic scales, one line a type of node.

    Args:
        degrees: by type the degrees, ascending and above 0, and the share of the nodes that have so
            many edges or more; types without nodes are left out.
    """
    figure = new_figure(1)
    panel = figure.subplots()
    for name, (degree, share) in degrees.items():
        if len(np.asarray(degree)):
            panel.step(degree, share, ".-", where="pre", linewidth=1, markersize=4, label=name)
    panel.set(title=title, xlabel="degree", ylabel="share of nodes with at least so many edges")
    panel.set(xscale="log", yscale="log")
    if panel.get_lines():
        panel.legend()
    return figure


def figure_svg(figure: Figure) -> str:
    """The figure as an SVG element, to be put into a page; the same for the same figure."""
    stream = io.StringIO()
    with rc_context({"svg.hashsalt": "rankmill"}):
        figure.savefig(stream, format="svg", metadata={"Date": None})
    text = stream.getvalue()
    return text[text.index("<svg") :]


def standard_plots(
    report: FitReport,
    labels: Mapping[str, npt.ArrayLike],
    probabilities: Mapping[str, npt.ArrayLike],
) -> dict[str, Figure]:
    """Figures by the name that they are registered under: importance for models that know it, and
    reliability on the early-stopping rows where ``labels`` have probabilities."""
    figures = {"learning_curve": learning_curve_figure(report)}
    if labels:
        figures["reliability"] = reliability_figure(labels, probabilities, STOPPING_ROWS)
    if report.importances:
        figures["feature_importance"] = importance_figure(report)
    return figures
