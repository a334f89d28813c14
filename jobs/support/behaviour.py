"""What a ranker must do, and must not, when rows change in a way whose effect is known.

The checks are data, after Ribeiro et al., Beyond Accuracy: Behavioral Testing of NLP Models with
CheckList, ACL 2020: each says how rows are changed and what is expected of the scores. Adding one
is one entry.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from feature_store.labels import label_column
from feature_store.schemas import SAMPLE_KEYS
from jobs.support import behaviour_changes as change
from jobs.support import behaviour_limits as limits
from jobs.support.behaviour_changes import Changed
from jobs.support.behaviour_limits import FAIL, SKIP, Finding, Scoring
from jobs.support.contenders import Contender
from jobs.support.report import CheckLine
from models.base import LABEL_PREFIX, ModelError
from models.metrics import grouped

__all__ = ["CHECKS", "Check", "ScoreRows", "run_checks", "sampled"]

Floats = npt.NDArray[np.float64]
ScoreRows = Callable[[pa.Table], Floats]
"""One score a row, (rows,), larger ranks higher."""


@dataclass(frozen=True)
class Check:
    """A change of rows, and what scores must do then.

    Attributes:
        expected: a sentence; ``{limit}`` stands for the limit.
        reads: columns that are changed, of those that the ranker reads; None for all of them.
        change: of rows and those columns that are there.
        judge: what is seen of the scores, with the limit.
    """

    name: str
    about: str
    expected: str
    reads: tuple[str, ...] | None
    change: Callable[[pa.Table, Sequence[str]], Changed]
    judge: Callable[[Scoring, float], Finding]
    limit: float = 0.0


CHECKS: Final[tuple[Check, ...]] = (
    Check(
        "permuted features", "The features of every row come from another row.",
        "AUC 0.5 within 4 standard errors, or within {limit}", None,
        change.permuted, limits.unrelated, 0.02,
    ),
    Check(
        "rows apart", "Half of the rows are scored, in another order.",
        "scores differ by at most {limit} of their mean size", None,
        change.reordered, limits.as_before, 1e-6,
    ),
    Check(
        "new user", "Nothing is known of the user.",
        "finite; at least half of the groups still ranked; mean score within a factor of {limit}",
        change.USER_COLUMNS, change.new_user, limits.still_ranks, 5.0,
    ),
    Check(
        "new item", "One item of each group, its room and its host have no history.",
        "finite; first in more than {limit:.0%} of the groups",
        change.ITEM_COLUMNS, change.new_item, limits.sometimes_first, 0.0,
    ),
    Check(
        "sold-out item", "Items are shown, but not clicked or bought for a day.",
        "mean score at most {limit} standard deviations higher",
        change.SALES_COLUMNS, change.sold_out, limits.not_higher, 0.01,
    ),
    Check(
        "dominating host", "The counts of one host of each group are tenfold.",
        "its odds of the first place rise at most {limit} times",
        change.HOST_COUNTS, change.popular_host, limits.odds_of_first, 5.0,
    ),
    Check(
        "higher CTR", "Click-through rates of what is ranked are 20 % higher.",
        "mean score at most {limit} standard deviations lower",
        change.CTR_COLUMNS, change.higher_ctr, limits.not_lower, 0.01,
    ),
    Check(
        "missing features", "Every number is missing, as in an outage.",
        "finite scores", change.DENSE_COLUMNS, change.without_numbers, limits.finite,
    ),
)  # fmt: skip


def run_checks(
    ranker: Contender | ScoreRows, rows: pa.Table, label: str, *,
    checks: Sequence[Check] = CHECKS, most_rows: int = 4000,
) -> list[CheckLine]:  # fmt: skip
    """A line for every check, in their order.

    A score that is not finite fails a check, and so does a ranker that refuses the changed rows. A
    check is skipped where the ranker reads none of its columns, or the rows are too few to tell.

    Args:
        ranker: of a contender, its scores of ``label``, changing what it reads; of a function, all
            columns but keys and labels are taken to be read.
        rows: feature rows with the columns of ``SAMPLE_KEYS`` that identify them, all columns that
            the ranker reads, and ``label_<label>``; null where that is not known yet.
        most_rows: whole groups of at most so many rows are used, the same ones every time.

    Raises:
        ValueError: when rows lack ``sample_id``, ``group_id``, ``target_id`` or the label.
    """
    _require(rows, label)
    used = sampled(rows, most_rows)
    if not used.num_rows:
        return [_line(check, Finding(SKIP, "no rows"), "") for check in checks]
    score, reads = _scorer(ranker, used, label)
    before = _checked(score(used), used.num_rows)
    wrong = _not_finite(before, "rows as they are")
    if wrong is not None:
        example = _example(used, wrong.row, before, before)
        return [_line(check, wrong, example) for check in checks]
    return [_run(check, score, reads, used, before, label) for check in checks]


def sampled(rows: pa.Table, most: int) -> pa.Table:
    """Whole groups of at most ``most`` rows together, by the hash of their names; one at least."""
    if rows.num_rows <= most:
        return rows
    by = grouped(rows["group_id"])
    digests = [hashlib.blake2b(str(name).encode(), digest_size=8).digest() for name in by.ids]
    order = np.array(sorted(range(len(digests)), key=digests.__getitem__))
    fitting = int(np.searchsorted(np.cumsum(by.sizes[order]), most, side="right"))
    chosen = np.zeros(len(order), np.bool_)
    chosen[order[: max(fitting, 1)]] = True
    place = np.flatnonzero(np.repeat(chosen, by.sizes))
    return rows.take(pa.array(np.sort(by.order[place]) if len(by.order) else place))


def _run(
    check: Check, score: ScoreRows, reads: Sequence[str], rows: pa.Table, before: Floats, label: str
) -> CheckLine:
    columns = [name for name in reads if check.reads is None or name in check.reads]
    if not columns:
        return _line(check, Finding(SKIP, f"the ranker reads none of {_some(check.reads)}"), "")
    changed = check.change(rows, columns)
    if not changed.marked.any():
        return _line(check, Finding(SKIP, "no row that it could be seen on"), "")
    try:
        after = _checked(score(changed.rows), changed.rows.num_rows)
    except ModelError as error:
        return _line(check, Finding(FAIL, f"refused: {error}"), "")
    place = pa.array(changed.place)
    labels = rows[label_column(label)].cast(pa.float64()).to_numpy()[changed.place]
    was = rows.take(place)
    found = Scoring(was, labels, before[changed.place], after, changed.marked)
    finding = _not_finite(after, "changed rows") or check.judge(found, check.limit)
    return _line(check, finding, _example(was, finding.row, found.before, after))


def _scorer(
    ranker: Contender | ScoreRows, rows: pa.Table, label: str
) -> tuple[ScoreRows, list[str]]:
    """How rows are scored, and which of their columns that looks at."""
    if not isinstance(ranker, Contender):
        keys = {*(field.name for field in SAMPLE_KEYS), "hour"}
        named = (name for name in rows.column_names if not name.startswith(LABEL_PREFIX))
        return ranker, [name for name in named if name not in keys]
    told = ranker.score
    read = {*ranker.reads}
    return lambda table: told(table, [label])[label], [n for n in rows.column_names if n in read]


def _require(rows: pa.Table, label: str) -> None:
    wanted = ("sample_id", "group_id", "target_id", label_column(label))
    missing = [name for name in wanted if name not in rows.column_names]
    if missing:
        raise ValueError(
            f"rows lack {', '.join(missing)}; give rows as a training set has them, with labels"
        )


def _checked(scores: npt.ArrayLike, count: int) -> Floats:
    values = np.asarray(scores, dtype=np.float64)
    if values.shape != (count,):
        raise ValueError(f"{count} rows were given scores of shape {values.shape}; one a row is "
                         "wanted")  # fmt: skip
    return values


def _not_finite(scores: Floats, what: str) -> Finding | None:
    wrong = np.flatnonzero(~np.isfinite(scores))
    if not len(wrong):
        return None
    return Finding(FAIL, f"{len(wrong)} of {len(scores)} scores of the {what} are not finite",
                   int(wrong[0]))  # fmt: skip


def _example(rows: pa.Table, row: int | None, before: Floats, after: Floats) -> str:
    if row is None:
        return ""
    names = [f"{key} {rows[key][row].as_py()}" for key in ("sample_id", "target_id")]
    return f"{', '.join(names)}: {before[row]:.4g} before, {after[row]:.4g} after"


def _line(check: Check, finding: Finding, example: str) -> CheckLine:
    expected = check.expected.format(limit=check.limit)
    return CheckLine(check.name, check.about, finding.level, expected, finding.seen, example)


def _some(names: Sequence[str] | None) -> str:
    """The first few of ``names``."""
    few = list(names or ())
    more = f" and {len(few) - 3} more" if len(few) > 3 else ""
    return ", ".join(few[:3]) + more
