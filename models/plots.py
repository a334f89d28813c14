"""Figures for a version's page: feature importance, learning curve, reliability.

Figures are made without pyplot, so nothing global is opened or left open.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy.typing as npt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from models.base import FitReport
from models.metrics import reliability_curve

__all__ = ["importance_figure", "learning_curve_figure", "reliability_figure", "standard_plots"]

_LEFT_OUT = 60  # characters of a column's name that are shown


def _figure(panels: int, height: float = 4.0) -> Figure:
    figure = Figure(figsize=(6.0 * panels, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def importance_figure(report: FitReport, top: int = 20) -> Figure:
    """The ``top`` columns by share of the total gain, one panel a task."""
    figure = _figure(len(report.importances), height=1.0 + 0.25 * top)
    axes = figure.subplots(1, len(report.importances), squeeze=False)[0]
    for panel, (task, gains) in zip(axes, report.importances.items(), strict=True):
        total = sum(gains.values()) or 1.0
        best = sorted(gains.items(), key=lambda item: (-item[1], item[0]))[:top][::-1]
        panel.barh([name[:_LEFT_OUT] for name, _ in best], [gain / total for _, gain in best])
        panel.set(title=f"{task}: feature importance", xlabel="share of total gain")
    return figure


def learning_curve_figure(report: FitReport) -> Figure:
    """Loss by round, one panel a task; the dashed line is the round that was kept."""
    figure = _figure(len(report.curves))
    axes = figure.subplots(1, len(report.curves), squeeze=False)[0]
    for panel, (task, curves) in zip(axes, report.curves.items(), strict=True):
        for name, losses in curves.items():
            panel.plot(range(1, len(losses) + 1), losses, label=name)
        panel.axvline(report.rounds[task], linestyle="--", color="grey")
        panel.set(title=f"{task}: learning curve", xlabel="round", ylabel="log loss")
        panel.legend()
    return figure


def reliability_figure(
    labels: Mapping[str, npt.ArrayLike], probabilities: Mapping[str, npt.ArrayLike]
) -> Figure:
    """Predicted against observed rate in ten bins of equal counts, one panel a task.

    Rows whose label is immature must have been left out.
    """
    figure = _figure(len(labels))
    axes = figure.subplots(1, len(labels), squeeze=False)[0]
    for panel, (task, values) in zip(axes, labels.items(), strict=True):
        curve = reliability_curve(values, probabilities[task])
        top = max([*curve.predicted, *curve.observed, 1e-6])
        panel.plot([0, top], [0, top], linestyle="--", color="grey")
        panel.plot(curve.predicted, curve.observed, marker="o")
        panel.set(
            title=f"{task}: reliability ({int(curve.rows.sum()):,} rows)",
            xlabel="mean predicted probability",
            ylabel="observed rate",
        )
    return figure


def standard_plots(
    report: FitReport,
    labels: Mapping[str, npt.ArrayLike],
    probabilities: Mapping[str, npt.ArrayLike],
) -> dict[str, Figure]:
    """The three figures by the name that they are registered under."""
    return {
        "feature_importance": importance_figure(report),
        "learning_curve": learning_curve_figure(report),
        "reliability": reliability_figure(labels, probabilities),
    }
