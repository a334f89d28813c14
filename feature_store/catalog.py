"""The catalogue of features: what the views declare, as a page to read.

``python -m feature_store.catalog`` prints it; ``CATALOG.md`` beside this file keeps it.
"""

from __future__ import annotations

from collections.abc import Iterable

from feature_store.embedding_views import EMBEDDING_VIEWS, SIMILARITIES, SPACE
from feature_store.graph import EDGE_TYPES, EdgeType
from feature_store.sequence_views import SEQUENCE_VIEWS, SequenceView
from feature_store.views import (
    ATTRIBUTES,
    BOTS,
    CONTEXT,
    DERIVED_KEYS,
    VIEWS,
    FeatureView,
    dense_columns,
    sparse_columns,
    window_name,
)

__all__ = ["catalogue"]

_HEAD = """# Feature catalogue

Generated from `views.py`, `sequence_views.py` and `graph.py` by `make catalog`; a test keeps it
fresh. A window `w` holds what arrived in [as_of - w, as_of). Rates are smoothed, (numerator + prior
x weight) / (denominator + weight); trends compare a short window with its share of a long one and
are 1 where nothing was seen.
"""


def catalogue() -> str:
    """Every feature of a sample, in Markdown."""
    parts = (_views(), _sequences(), _edges(), _vectors(), _attributes(), _derived(), _sizes())
    return "\n".join([_HEAD, *(line for part in parts for line in part)])


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> list[str]:
    names = list(header)
    lines = [names, ["---"] * len(names), *(list(row) for row in rows)]
    return [f"| {' | '.join(line)} |" for line in lines]


def _views() -> list[str]:
    header = ("view", "keys", "what", "windows", "features", "ttl", "owner")
    rows = (
        (
            f"[`{view.name}`](#{view.name})",
            ", ".join(f"`{key}`" for key in view.keys),
            view.description,
            _windows(view),
            str(len(view.sample_columns())),
            f"{view.ttl_hours} h",
            view.owner,
        )
        for view in VIEWS
    )
    sections = [line for view in VIEWS for line in _section(view)]
    return ["## Behaviour", "", *_table(header, rows), "", *sections]


def _windows(view: FeatureView) -> str:
    return ", ".join(window_name(window) for window in view.windows)


def _section(view: FeatureView) -> list[str]:
    rates = [
        f"`{r.name}` = {r.numerator} / {r.denominator}, prior {r.prior:g}, weight {r.weight:g}"
        for r in view.rates
    ]
    trends = [
        f"`{t.action}_trend_{window_name(t.short)}_{window_name(t.long)}`, weight {t.weight:g}"
        for t in view.trends
    ]
    listed = {
        "Counts, per window": [f"`{action}`" for action in view.actions],
        "Amounts, per window": [f"`{action}_amount`" for action in view.amounts],
        "Rates, per window": rates,
        "Trends": trends,
        "Recency, in hours": [f"`hours_since_{action}`" for action in view.recency],
    }
    lines = [f"- {what}: {'; '.join(names)}" for what, names in listed.items() if names]
    tables = f"- Tables: `{view.counts_table}`, `{view.day_counts_table}`, `{view.features_table}`"
    return [f"### {view.name}", "", view.description, "", *lines, tables, ""]


def _sequences() -> list[str]:
    header = ("sequence", "key", "what", "actions", "elements", "length", "arrived", "owner")
    rows = (
        (
            f"`{view.name}`",
            f"`{view.key}`",
            view.description,
            ", ".join(f"`{action}`" for action in view.actions),
            ", ".join(f"`{element}`" for element in view.elements),
            str(view.length),
            _arrived(view),
            view.owner,
        )
        for view in SEQUENCE_VIEWS
    )
    return ["## Sequences", "", "Newest last, as of the sample.", "", *_table(header, rows), ""]


def _arrived(view: SequenceView) -> str:
    if view.lookback_hours is None:
        return "before as_of"
    return f"in the {window_name(view.lookback_hours * 60)} before as_of"


def _attributes() -> list[str]:
    rows = (
        (
            f"`{view.entity}`",
            f"`{view.table}`",
            ", ".join(f"`{name}`" for name in view.dense()) or "-",
            ", ".join(f"`{name}`" for name in view.sparse()) or "-",
        )
        for view in ATTRIBUTES
    )
    context = ", ".join(f"`{name}`" for name in CONTEXT)
    header = ("entity", "table", "numbers", "categories")
    return ["## Attributes", "", *_table(header, rows), "", f"Context: {context}.", ""]


def _derived() -> list[str]:
    rows = (
        (f"`{key.name}`", ", else ".join(f"`{table}.{column}`" for table, _, column in key.lookups))
        for key in DERIVED_KEYS
    )
    bots = (
        f"Events of an hour do not count when their user made more than {BOTS.max_events} of them, "
        f"or was shown at least {BOTS.min_impressions} impressions and clicked on more than "
        f"{BOTS.max_click_rate:.0%} of them."
    )
    return [
        "## Derived keys",
        "",
        *_table(("key", "taken from"), rows),
        "",
        "## Bots",
        "",
        bots,
        "",
    ]


def _vectors() -> list[str]:
    vectors = [(f"`{v.name}`", f"`{v.key}`", v.description) for v in EMBEDDING_VIEWS]
    cosines = [(f"`{s.name}`", f"`{s.left.key}`, `{s.right.key}`", s.description)
               for s in SIMILARITIES]  # fmt: skip
    what = (
        "From table `node_embeddings`, of the business day before the sample's: lists, with their "
        f"space in `{SPACE}`, and cosines of two of them. Null where a node has no vector. Read "
        "beside samples by the services that name them."
    )
    header = ("column", "key", "what")
    return ["## Node embeddings", "", what, "", *_table(header, [*vectors, *cosines]), ""]


def _edges() -> list[str]:
    header = ("edge", "what", "made from", "degree")
    rows = (
        (
            f"`{edge.name}`",
            edge.description,
            _made_from(edge),
            "capped" if edge.capped else "any",
        )
        for edge in EDGE_TYPES
    )
    what = (
        "Table `edges` holds the graph of a business day: each edge once, from what arrived in the "
        "days of its window."
    )
    return ["## Graph", "", what, "", *_table(header, rows), ""]


def _made_from(edge: EdgeType) -> str:
    tables = dict.fromkeys(fact.table for fact in edge.facts)
    return ", ".join(f"`{table}`" for table in tables or ("events",))


def _sizes() -> list[str]:
    return [
        f"A sample holds {len(dense_columns())} numbers and {len(sparse_columns())} categories.\n"
    ]


if __name__ == "__main__":
    print(catalogue(), end="")
