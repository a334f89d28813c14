"""Skew: features as they were logged when a ranker served, against the same features recomputed.

Rows are paired first, so the difference is told row by row and feature by feature; two sets of rows
with the same distribution can still be different features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.windows import Ints, key_codes

__all__ = ["PAIRINGS", "FeatureSkew", "Skew", "as_rows", "paired"]

PAIRINGS: Final = (("sample_id",), ("request_id", "target_id", "user_id"))
"""Columns that name an impression, the better way first."""


@dataclass(frozen=True)
class FeatureSkew:
    """How one feature differs, over all pairs of rows.

    Attributes:
        rows: pairs compared.
        differing: of these, how many differ by more than the tolerance, or miss a value on one
            side only.
        only_logged: pairs whose recomputed value is missing (null or NaN).
        only_recomputed: pairs whose logged value is missing.
        total: sum of the absolute differences where both are numbers.
        measured: how many pairs that sum is over.
        largest: the largest of them.
    """

    feature: str
    rows: int = 0
    differing: int = 0
    only_logged: int = 0
    only_recomputed: int = 0
    total: float = 0.0
    measured: int = 0
    largest: float = 0.0

    @property
    def share(self) -> float:
        """Share of the pairs that differ, 0 to 1."""
        return self.differing / self.rows if self.rows else 0.0

    @property
    def mean(self) -> float:
        """Mean absolute difference where both are numbers; 0 for texts."""
        return self.total / self.measured if self.measured else 0.0


def paired(logged: pa.Table, recomputed: pa.Table, keys: Sequence[str]) -> tuple[Ints, Ints]:
    """Places of the rows of ``logged`` and ``recomputed`` that are the same impression.

    Keys are compared column by column. A logged row without a key has no partner, nor has one whose
    key several recomputed rows have; several logged rows may have the same partner.

    Returns:
        Two arrays (pairs,), in the order of ``logged``.
    """
    mine, theirs = _with_keys(logged, keys), _with_keys(recomputed, keys)
    both = pa.concat_tables([_keys_at(logged, mine, keys), _keys_at(recomputed, theirs, keys)])
    codes = key_codes(both, keys)
    asked, known = codes[: len(mine)], codes[len(mine) :]
    place = np.full(int(codes.max(initial=-1)) + 1, -1, np.int64)
    place[known] = np.arange(len(known))
    place[np.bincount(known, minlength=len(place)) > 1] = -1
    found = place[asked]
    return mine[found >= 0], theirs[found[found >= 0]]


def _with_keys(rows: pa.Table, keys: Sequence[str]) -> Ints:
    valid = np.ones(rows.num_rows, bool)
    for key in keys:
        valid &= rows[key].is_valid().to_numpy()
    return np.flatnonzero(valid)


def _keys_at(rows: pa.Table, places: Ints, keys: Sequence[str]) -> pa.Table:
    named = pa.table({key: pc.cast(rows[key], pa.string()) for key in keys})
    return named.take(pa.array(places))


class Skew:
    """The differences of ``features``, gathered over any number of pairs of tables.

    Args:
        tolerance: numbers a and b differ when |a - b| > tolerance * max(1, |b|), b recomputed.
    """

    def __init__(self, features: Sequence[str], tolerance: float) -> None:
        self._found: dict[str, FeatureSkew] = {name: FeatureSkew(name) for name in features}
        self._tolerance = tolerance

    def add(self, logged: pa.Table, recomputed: pa.Table) -> None:
        """Compare two tables row by row: equally many rows, in the same order.

        Raises:
            ValueError: for tables of different lengths.
            TypeError: for a feature that is a text on one side and a number on the other.
        """
        if logged.num_rows != recomputed.num_rows:
            raise ValueError(f"{logged.num_rows} logged rows, {recomputed.num_rows} recomputed")
        for name, so_far in self._found.items():
            self._found[name] = self._compared(so_far, logged[name], recomputed[name])

    def features(self) -> list[FeatureSkew]:
        """What was found, the worst first."""
        return sorted(self._found.values(), key=lambda f: (-f.share, -f.mean, f.feature))

    def _compared(
        self, so_far: FeatureSkew, logged: pa.ChunkedArray, recomputed: pa.ChunkedArray
    ) -> FeatureSkew:
        texts = [_is_text(column.type) for column in (logged, recomputed)]
        if texts[0] != texts[1]:
            raise TypeError(
                f"feature {so_far.feature!r} is {logged.type} in the log and {recomputed.type} in "
                "the samples; log it as the samples hold it"
            )
        here, there = _present(logged), _present(recomputed)
        both = here & there
        if texts[0]:
            a, b = (pc.cast(column, pa.string()) for column in (logged, recomputed))
            unequal = pc.fill_null(pc.not_equal(a, b), False).to_numpy()
            distance = np.zeros(0)
        else:
            x, y = _numbers(logged), _numbers(recomputed)
            gap = np.where(both, np.abs(x - y), 0.0)
            unequal = gap > self._tolerance * np.maximum(1.0, np.abs(np.where(both, y, 0.0)))
            distance = gap[both]
        return replace(
            so_far,
            rows=so_far.rows + len(both),
            differing=so_far.differing + int((unequal | (here != there)).sum()),
            only_logged=so_far.only_logged + int((here & ~there).sum()),
            only_recomputed=so_far.only_recomputed + int((there & ~here).sum()),
            total=so_far.total + float(distance.sum()),
            measured=so_far.measured + len(distance),
            largest=max(so_far.largest, float(distance.max(initial=0.0))),
        )


def _is_text(kind: pa.DataType) -> bool:
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _present(column: pa.ChunkedArray) -> npt.NDArray[np.bool_]:
    nan = pa.types.is_floating(column.type)
    present: npt.NDArray[np.bool_] = pc.invert(column.is_null(nan_is_null=nan)).to_numpy()
    return present


def _numbers(column: pa.ChunkedArray) -> npt.NDArray[np.float64]:
    values: npt.NDArray[np.float64] = pc.fill_null(pc.cast(column, pa.float64()), np.nan).to_numpy()
    return values


def as_rows(found: Sequence[FeatureSkew]) -> list[Mapping[str, float | str]]:
    """``found`` as plain rows, for a summary or a table."""
    return [
        {
            "feature": f.feature, "rows": f.rows, "share": f.share, "mean": f.mean,
            "largest": f.largest, "only_logged": f.only_logged,
            "only_recomputed": f.only_recomputed,
        }
        for f in found
    ]  # fmt: skip
