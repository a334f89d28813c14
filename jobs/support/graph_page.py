"""A page of a day's graph: how many nodes and edges there are, and how they are linked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from feature_store.graph import GraphRules
from feature_store.graph_statistics import Degrees, GraphStatistics
from jobs.support.page import figures, page, section, table
from models.plots import bars_figure, degrees_figure, figure_svg

__all__ = ["GraphDay", "graph_page"]

_SHARES: Final = (0.0, 0.5, 0.99, 1.0)
_DEGREES: Final = ("min", "median", "p99", "max")


@dataclass(frozen=True)
class GraphDay:
    """The graph of a business day.

    Attributes:
        first, last: the hours that it is made of; ``hours`` of them were there and ``missing`` not.
    """

    date: str
    first: str
    last: str
    hours: int
    missing: int
    rules: GraphRules
    statistics: GraphStatistics

    @property
    def title(self) -> str:
        return f"Graph of {self.date}"


def graph_page(day: GraphDay) -> str:
    """One self-contained HTML page: nodes and edges by type, their degrees, a plot of these."""
    of, rules = day.statistics, day.rules
    nodes = sum(degrees.count for degrees in of.nodes.values())
    without = f", {day.missing:,} others are not there" if day.missing else ""
    words = (
        f"{nodes:,} nodes and {of.kept:,} edges of what arrived from {day.first} to {day.last} "
        f"({day.hours:,} hours{without}), with a half-life of {rules.half_life_days:g} days; "
        f"{of.dropped:,} edges were left out, since a node keeps its {rules.degree_cap:,} heaviest "
        "of a capped type."
    )
    plots = [degrees_figure("Degrees", {name: kind.at_least() for name, kind in of.nodes.items()})]
    if of.kept:
        counts = {name: float(edges.edges) for name, edges in of.edges.items()}
        plots.append(bars_figure("Edges by type", "edges", counts))
    return page(
        day.title,
        words,
        section("Nodes", _nodes(of)),
        section("Edges", _edges(of)),
        section("Distribution of degrees", figures(map(figure_svg, plots))),
    )


def _quantiles(degrees: Degrees) -> list[str]:
    return [f"{degrees.quantile(share):,}" for share in _SHARES]


def _nodes(of: GraphStatistics) -> str:
    numbers = ("nodes", "isolated by the cap", *(f"{name} degree" for name in _DEGREES))
    rows = [
        [name, f"{degrees.count:,}", f"{degrees.isolated:,}", *_quantiles(degrees)]
        for name, degrees in of.nodes.items()
    ]
    return table(("type", *numbers), rows, numbers)


def _edges(of: GraphStatistics) -> str:
    ends = (f"degree at the {end}: {' / '.join(_DEGREES)}" for end in ("source", "target"))
    numbers = ("edges", "left out", "events", *ends)
    rows = [
        [
            name, f"{edges.edges:,}", f"{edges.dropped:,}", f"{edges.events:,}",
            *(" / ".join(_quantiles(degrees)) for degrees in (edges.source, edges.target)),
        ]
        for name, edges in of.edges.items()
    ]  # fmt: skip
    return table(("type", *numbers), rows, numbers)
