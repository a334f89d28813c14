"""Segments: rows told apart by who asked, what was shown and where, and how rankers do in each.

A segment is a set of rows, and a group is cut down to its rows there: a user's segment keeps whole
groups, a position's compares impressions of a request that stood in about the same place. What an
hour says of a segment are sums, so that hours add up and memory does not grow with them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.views import VIEWS, window_name
from jobs.support.contenders import Contender, Scores
from jobs.support.report import Difference, SegmentLine, number
from models.metrics import (
    Groups,
    benjamini_hochberg,
    group_codes,
    grouped,
    interval_of_sums,
    ndcg_at_k,
)

__all__ = ["DIMENSIONS", "Dimension", "segment_columns", "segment_lines", "segment_sums", "worst"]

_UNKNOWN: Final = "unknown"
_OTHER: Final = "other"
_SHOWN: Final = 24
"""Values of a dimension that are told apart; the rarest beyond them are one."""
_ENOUGH: Final = 30
"""Groups below which no segment is called the worst."""
_LEVEL: Final = 0.05
_SUMS: Final = (
    "rows", "positives", "told", "told_rows", "groups", "ndcg", "ndcg_squares", "apart",
    "apart_squares",
)  # fmt: skip
_KEYS: Final = ("dimension", "value", "role", "label")

Texts = pa.Array | pa.ChunkedArray


@dataclass(frozen=True)
class Dimension:
    """What rows are told apart by.

    Attributes:
        of: the rows' values, as texts; null for rows that have none.
        reads: columns of samples that it looks at.
    """

    name: str
    about: str
    of: Callable[[pa.Table], Texts]
    reads: tuple[str, ...]


def _column(name: str) -> Callable[[pa.Table], Texts]:
    return lambda rows: rows[name]


def _hour(rows: pa.Table) -> Texts:
    hours = pc.cast(pc.cast(rows["hour_of_day"], pa.int32()), pa.string())
    return pc.utf8_lpad(hours, 2, "0")


_PLACES: Final = ("1", "2", "3", "4 to 6", "7 to 10", "after 10")


def _position(rows: pa.Table) -> Texts:
    places = pc.cast(rows["position"], pa.int64()).combine_chunks()
    code = np.searchsorted([1, 2, 3, 6, 10], places.fill_null(1).to_numpy(zero_copy_only=False))
    return pa.array(_PLACES).take(pa.array(code, mask=pc.is_null(places).to_numpy(False)))


_IMPRESSIONS: Final = {
    view.name: f"{view.name}_impression_{window_name(max(view.windows))}"
    for view in VIEWS
    if view.name in ("user", "item", "room")
}


def _user(rows: pa.Table) -> Texts:
    return pc.if_else(pc.equal(rows[_IMPRESSIONS["user"]], 0), "new", "known")


def _target(rows: pa.Table) -> Texts:
    rooms = pc.equal(rows["target_type"], "room")
    shown = pc.if_else(rooms, rows[_IMPRESSIONS["room"]], rows[_IMPRESSIONS["item"]])
    kind = pc.if_else(rooms, "room", "item")
    return pc.binary_join_element_wise(pc.if_else(pc.equal(shown, 0), "cold", "warm"), kind, " ")


DIMENSIONS: Final = (
    Dimension("lifecycle", "what is known of the user", _column("user_lifecycle"),
              ("user_lifecycle",)),
    Dimension("user", "new: shown nothing in the longest window", _user, (_IMPRESSIONS["user"],)),
    Dimension("target", "cold: shown to nobody in the longest window", _target,
              ("target_type", _IMPRESSIONS["item"], _IMPRESSIONS["room"])),
    Dimension("hour of the day", "in the source's time zone", _hour, ("hour_of_day",)),
    Dimension("scene", "the page that asked", _column("scene"), ("scene",)),
    Dimension("position", "where it was shown", _position, ("position",)),
)  # fmt: skip
"""Adding a dimension is one entry."""


def segment_columns() -> tuple[str, ...]:
    """Every column of samples that a dimension looks at."""
    return tuple(dict.fromkeys(name for one in DIMENSIONS for name in one.reads))


def segment_sums(
    rows: pa.Table, groups: npt.NDArray[np.int64], label: str, labels: Scores,
    contenders: Sequence[Contender], scores: Mapping[str, Scores], reference: str,
) -> pa.Table:  # fmt: skip
    """Sums of one label by dimension, value and role; those of several hours add up.

    Args:
        rows: mature ones, with :func:`segment_columns`.
        groups: a number per group, of each row.
        labels: 0 or 1.
        scores: by role.
        reference: the role that differences are to.
    """
    parts = []
    for dimension in DIMENSIONS:
        cut = _Cut(dimension.of(rows), groups)
        theirs = cut.ndcg(labels, scores[reference])
        for one in contenders:
            values = cut.ndcg(labels, scores[one.role])
            told = scores[one.role] if one.tells(label) else None
            sums = {
                **cut.row_sums(labels, told), **cut.group_sums("ndcg", values),
                **cut.group_sums("apart", values - theirs),
            }  # fmt: skip
            names = {"dimension": dimension.name, "role": one.role, "label": label}
            constants = {k: pa.repeat(v, len(cut.values)) for k, v in names.items()}
            columns = {"value": pa.array(cut.values, pa.string()), **constants, **sums}
            parts.append(pa.table({name: columns[name] for name in (*_KEYS, *_SUMS)}))
    return pa.concat_tables(parts)


class _Cut:
    """Groups cut down to the rows of each value of a dimension."""

    def __init__(self, texts: Texts, groups: npt.NDArray[np.int64]) -> None:
        encoded = pc.fill_null(texts, _UNKNOWN).dictionary_encode()
        whole = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
        self.values: list[str] = whole.dictionary.to_pylist()
        self._code = whole.indices.to_numpy(zero_copy_only=False).astype(np.int64)
        together = group_codes(groups, self._code)
        self._groups: Groups = grouped(together)
        value_of = np.empty(len(self._groups.ids), np.int64)
        value_of[together] = self._code
        self._value_of = value_of[np.asarray(self._groups.ids, np.int64)]

    def ndcg(self, labels: Scores, scores: Scores) -> Scores:
        """NDCG@10 of each group, NaN where it has none."""
        return ndcg_at_k(labels, scores, self._groups, 10).values

    def row_sums(self, labels: Scores, told: Scores | None) -> dict[str, Scores]:
        rows = self._summed(self._code, np.ones(len(labels)))
        nothing = np.zeros(len(self.values))
        return {
            "rows": rows, "positives": self._summed(self._code, labels),
            "told": nothing if told is None else self._summed(self._code, told),
            "told_rows": nothing if told is None else rows,
        }  # fmt: skip

    def group_sums(self, name: str, values: Scores) -> dict[str, Scores]:
        known = ~np.isnan(values)
        of, found = self._value_of[known], values[known]
        sums = {name: self._summed(of, found), f"{name}_squares": self._summed(of, found**2)}
        return {"groups": self._summed(of, np.ones(len(found))), **sums}

    def _summed(self, code: npt.NDArray[np.int64], weights: Scores) -> Scores:
        # of no rows at all bincount makes whole numbers
        return np.bincount(code, weights=weights, minlength=len(self.values)).astype(np.float64)


def segment_lines(sums: Sequence[pa.Table], reference: str) -> list[SegmentLine]:
    """The segments of all hours; dimensions in their order, values by name, positions by place. A
    dimension of a single value tells nothing apart and is left out.

    P-values are adjusted (Benjamini and Hochberg) over the segments of a role and label.
    """
    if not sums:
        return []
    whole = _told_apart(_pooled(pa.concat_tables(sums)))
    lines = [_line(row, reference) for row in _pooled(_rarest_as_one(whole)).to_pylist()]
    places = {one.name: place for place, one in enumerate(DIMENSIONS)}

    def order(line: SegmentLine) -> tuple[Any, ...]:
        last = line.value in (_OTHER, _UNKNOWN)
        place = _PLACES.index(line.value) if line.value in _PLACES else 0
        return places[line.dimension], last, place, line.value

    return _adjusted(sorted(lines, key=order))


def _pooled(table: pa.Table) -> pa.Table:
    found = table.group_by(_KEYS).aggregate([(name, "sum") for name in _SUMS])
    return found.rename_columns([name.removesuffix("_sum") for name in found.column_names])


def _told_apart(table: pa.Table) -> pa.Table:
    """The rows of dimensions that have several values."""
    counts = table.group_by("dimension").aggregate([("value", "count_distinct")])
    several = counts.filter(pc.greater(counts["value_count_distinct"], 1))["dimension"]
    return table.filter(pc.is_in(table["dimension"], value_set=several.combine_chunks()))


def _rarest_as_one(table: pa.Table) -> pa.Table:
    """The values of a dimension beyond the most frequent ones, called other."""
    counts = table.group_by(["dimension", "value"]).aggregate([("rows", "max")]).to_pylist()
    kept = set()
    for dimension in {row["dimension"] for row in counts}:
        mine = [row for row in counts if row["dimension"] == dimension]
        mine.sort(key=lambda row: (-row["rows_max"], row["value"]))
        kept |= {(dimension, row["value"]) for row in mine[:_SHOWN]}
    pairs = zip(table["dimension"].to_pylist(), table["value"].to_pylist(), strict=True)
    values = pa.array([pair[1] if pair in kept else _OTHER for pair in pairs], pa.string())
    return table.set_column(table.schema.get_field_index("value"), "value", values)


def _line(row: Mapping[str, Any], reference: str) -> SegmentLine:
    groups = row["groups"]
    ndcg = interval_of_sums(groups, row["ndcg"], row["ndcg_squares"])
    apart = interval_of_sums(groups, row["apart"], row["apart_squares"])
    rows, told = row["rows"], row["told_rows"]
    difference = None
    if row["role"] != reference and groups:
        difference = Difference(reference, *map(number, apart))
    return SegmentLine(
        row["dimension"], row["value"], row["role"], row["label"], int(rows), int(groups),
        number(ndcg.mean), number(ndcg.low), number(ndcg.high), row["positives"] / rows,
        row["told"] / told if told else None, difference,
    )  # fmt: skip


def _adjusted(lines: Sequence[SegmentLine]) -> list[SegmentLine]:
    found = list(lines)
    tested: dict[tuple[str, str], list[int]] = {}
    for place, line in enumerate(found):
        if line.difference is not None and line.difference.p_value is not None:
            tested.setdefault((line.role, line.label), []).append(place)
    for places in tested.values():
        adjusted = benjamini_hochberg([found[p].difference.p_value for p in places])
        for place, p_value in zip(places, adjusted, strict=True):
            apart = replace(found[place].difference, p_value=float(p_value))
            found[place] = replace(found[place], difference=apart)
    return found


def worst(lines: Sequence[SegmentLine], role: str, label: str) -> str:
    """A sentence on the segment in which ``role`` does worst against the reference; empty where no
    segment has enough groups."""
    mine = [
        (line.difference.value, line, line.difference)
        for line in lines
        if (line.role, line.label) == (role, label)
        and line.groups >= _ENOUGH
        and line.difference is not None
        and line.difference.value is not None
        and line.difference.low is not None
    ]
    if not mine:
        return ""
    value, line, apart = min(mine, key=lambda one: one[0])
    sure = "is no chance" if (apart.p_value or 0.0) < _LEVEL else "may be chance"
    return (
        f"{label}: {role} does worst where {line.dimension} is {line.value}, {value:+.4f} NDCG@10 "
        f"[{apart.low:+.4f}, {apart.high:+.4f}] against {apart.other} on {line.groups:,} groups; "
        f"beside {len(mine)} segments that {sure} (adjusted p {apart.p_value:.3f})"
    )
