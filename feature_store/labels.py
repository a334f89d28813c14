"""Labels, which exist only relative to a cut.

``labels(samples, outcomes, cut)`` uses outcomes known before ``cut`` and masks what is still open
there: a sample whose attribution window does not end before the cut has no label yet, neither 1
nor 0. The window includes its last instant, and what arrives at the cut is not known before it, so
a window that ends exactly there is open as well. A label that another action can undo is open as
long as that action's window.

A label does not wait for outcomes that arrive late. It would have to wait for the whole allowed
lateness, and nothing could be judged on an hour at the end of that hour's successor. An outcome
that happened inside its window and arrives after the cut makes a 0 that a later cut makes a 1;
where a log arrives late, cut later.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feature_store import hours as hr

__all__ = ["LABELS", "Label", "censored_share", "label_column", "labelled"]

_SECOND: Final = 1_000_000


@dataclass(frozen=True)
class Label:
    """What is learned: whether an action followed, or how much of it.

    Attributes:
        actions: the outcomes that decide it, any of them; a source need not declare all.
        summed: the sum of the actions' values (seconds of stay) instead of 0 or 1.
        undone_by: an action that takes the outcome back (a cancelled order is no conversion).
    """

    actions: tuple[str, ...]
    summed: bool = False
    undone_by: str | None = None

    def declared(self, windows: Mapping[str, int]) -> tuple[str, ...]:
        """Those of ``actions`` that a source declares; the label is absent without any."""
        return tuple(action for action in self.actions if action in windows)

    def open_seconds(self, windows: Mapping[str, int]) -> int:
        """How long after an impression the label can still change: the longest window."""
        undoing = (self.undone_by,) if self.undone_by else ()
        return max(windows.get(action, 0) for action in (*self.declared(windows), *undoing))


LABELS: Final[Mapping[str, Label]] = {
    "click": Label(("click",)),
    "long_view": Label(("long_view",)),
    "conversion": Label(("order",), undone_by="cancel"),
    "stay": Label(("stay",), summed=True),
    "follow": Label(("follow",)),
    "interaction": Label(("like", "comment", "share")),
}


def label_column(name: str) -> str:
    """The column that holds label ``name``."""
    return f"label_{name}"


def labelled(
    samples: pa.Table,
    outcomes: pa.Table,
    cut: str,
    windows: Mapping[str, int],
    names: Sequence[str] = tuple(LABELS),
) -> pa.Table:
    """``samples`` with a float32 column per label; null where it is immature at ``cut``.

    A label none of whose actions the source declares is absent, not negative. One of several
    actions is open for as long as the longest of their windows, and each counts inside its own.

    Args:
        samples: has ``sample_id`` and ``event_time``.
        outcomes: rows of table ``outcomes``; those known at or after ``cut`` are not used.
        cut: hour name; its start is the instant of the cut.
        windows: the source's declared actions, with their attribution windows in seconds.
        names: labels wanted.
    """
    instant = hr.start_of(cut)
    known = outcomes.filter(pc.less(outcomes["ingested_at"], pa.scalar(instant)))
    shown_at = pc.cast(samples["event_time"], pa.int64()).to_numpy()
    cut_micros = int(instant.timestamp()) * _SECOND
    row_of = pc.index_in(known["sample_id"], value_set=samples["sample_id"].combine_chunks())
    found = known.filter(pc.is_valid(row_of))
    rows = pc.drop_null(row_of).to_numpy().astype(np.int64)
    for name in names:
        label = LABELS[name]
        if not label.declared(windows):
            continue
        values = _values(found, rows, shown_at, label, windows)
        immature = shown_at + label.open_seconds(windows) * _SECOND >= cut_micros
        column = pa.array(values.astype(np.float32), mask=immature)
        samples = samples.append_column(label_column(name), column)
    return samples


def censored_share(table: pa.Table) -> pa.Table:
    """How much of each hour has no label yet.

    Args:
        table: result of :func:`labelled`, with ``hour``.

    Returns:
        One row per hour, in order: ``hour``, ``rows``, and for every label of the table a column of
        its name with the share of the hour's rows that are immature (float64, 0 to 1).
    """
    names = [name for name in LABELS if label_column(name) in table.column_names]
    empty = {name: pc.cast(pc.is_null(table[label_column(name)]), pa.float64()) for name in names}
    counted = pa.table({"hour": table["hour"], **empty}).group_by("hour")
    shares = counted.aggregate([([], "count_all"), *((name, "mean") for name in names)])
    columns = ["hour", "count_all", *(f"{name}_mean" for name in names)]
    return shares.select(columns).rename_columns(["hour", "rows", *names]).sort_by("hour")


def _values(
    found: pa.Table,
    rows: npt.NDArray[np.int64],
    shown_at: npt.NDArray[np.int64],
    label: Label,
    windows: Mapping[str, int],
) -> npt.NDArray[np.float64]:
    """The label's value of every sample: how much of its actions fell inside their windows."""

    def total(action: str, summed: bool) -> npt.NDArray[np.float64]:
        within = windows[action] * _SECOND
        chosen = pc.equal(found["action"], action).to_numpy()
        at = pc.cast(found["event_time"], pa.int64()).to_numpy()[chosen]
        target = rows[chosen]
        inside = (at >= shown_at[target]) & (at - shown_at[target] <= within)
        amount = pc.fill_null(found["value"], 0.0).to_numpy()[chosen][inside] if summed else None
        return np.bincount(target[inside], amount, len(shown_at)).astype(np.float64)

    value = np.zeros(len(shown_at))
    for action in label.declared(windows):
        value += total(action, label.summed)
    if label.undone_by is not None and label.undone_by in windows:
        value -= total(label.undone_by, label.summed)
    return value if label.summed else (value > 0).astype(np.float64)
