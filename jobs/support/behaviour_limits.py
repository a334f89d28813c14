"""What a behavioural check expects of the scores of changed rows. Shapes: M rows, G groups.

Every function takes a :class:`Scoring` and a limit, and gives a :class:`Finding`. The scores are
finite: whoever calls has seen to it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from models.metrics import auc, first_places, grouped

__all__ = [
    "FAIL",
    "PASS",
    "SKIP",
    "Finding",
    "Scoring",
    "as_before",
    "finite",
    "not_higher",
    "not_lower",
    "odds_of_first",
    "sometimes_first",
    "still_ranks",
    "unrelated",
]

PASS: Final = "pass"  # noqa: S105 - a level
FAIL: Final = "fail"
SKIP: Final = "skip"

_ERRORS: Final = 4.0
"""Standard errors beyond which chance is no explanation: one time in 16,000."""
_FIRST_BY_CHANCE: Final = 10.0
"""So many first places by chance are none in one of 22,000 worlds where nothing is wrong."""
_STILL: Final = 0.5

Floats = npt.NDArray[np.float64]


class Scoring(NamedTuple):
    """Rows that were scored twice.

    Attributes:
        rows: M rows as they were.
        labels: (M,) 1, 0, NaN where it is not known yet.
        before, after: (M,) scores as they were, and of the changed rows.
        marked: (M,) which rows the check is about.
    """

    rows: pa.Table
    labels: Floats
    before: Floats
    after: Floats
    marked: npt.NDArray[np.bool_]

    @property
    def gain(self) -> Floats:
        """By how much the change raised each score, (M,)."""
        return self.after - self.before


class Finding(NamedTuple):
    """``level``, what was ``seen``, and the ``row`` that shows it most, if any does."""

    level: str
    seen: str
    row: int | None = None


def finite(found: Scoring, limit: float) -> Finding:
    """That there are scores is all that is expected."""
    del limit
    return Finding(PASS, f"{len(found.after)} finite scores", _largest(np.abs(found.gain)))


def unrelated(found: Scoring, limit: float) -> Finding:
    """The AUC is .5, but for what chance explains, or ``limit`` if that is more.

    Without any relation of scores and labels, its standard error is at most
    sqrt((P + Q + 1) / (12 P Q)) with P positives and Q negatives (Mann and Whitney, 1947).
    """
    known = ~np.isnan(found.labels)
    labels = (found.labels[known] > 0).astype(np.float64)
    positives = float(labels.sum())
    negatives = len(labels) - positives
    if not positives or not negatives:
        return Finding(SKIP, f"{positives:.0f} positive and {negatives:.0f} negative labels")
    error = np.sqrt((len(labels) + 1) / (12 * positives * negatives))
    allowed = max(_ERRORS * float(error), limit)
    usual, seen = auc(labels, found.before[known]), auc(labels, found.after[known])
    words = f"AUC {seen:.3f} (0.5 ± {allowed:.3f} is allowed), {usual:.3f} unchanged"
    # What still knows the label best: the highest of the positives, or of the negatives.
    sign = np.where(found.labels > 0, 1.0, -1.0) * (1 if seen >= 0.5 else -1)
    shows = np.where(known, sign * (found.after - found.after.mean()), -np.inf)
    return Finding(_level(abs(seen - 0.5) <= allowed), words, _largest(shows))


def as_before(found: Scoring, limit: float) -> Finding:
    """No score differs by more than ``limit`` of the mean size of a score."""
    scale = float(np.abs(found.before).mean())
    gaps = np.abs(found.gain)
    most = float(gaps.max())
    relative = most / scale if scale else most
    return Finding(_level(relative <= limit), f"largest difference {relative:.2g} of the mean size",
                   _largest(gaps))  # fmt: skip


def still_ranks(found: Scoring, limit: float) -> Finding:
    """Scores differ inside half of the groups in which they did, and their mean is within a factor
    of ``limit`` of what it was; where scores are not all above 0, within ``limit`` standard
    deviations."""
    differed, differ = _differing(found.before, found.rows), _differing(found.after, found.rows)
    kept = int((differed & differ).sum())
    ranks = kept >= _STILL * int(differed.sum())
    before, after = float(found.before.mean()), float(found.after.mean())
    if found.before.min() > 0:
        near = before / limit <= after <= before * limit
        moved = f"mean score {after / before:.2f} times the usual"
    else:
        spread = float(found.before.std())
        near = abs(after - before) <= limit * spread
        moved = f"mean score {before:.4g}, then {after:.4g}, standard deviation {spread:.4g}"
    words = f"{kept} of {int(differed.sum())} groups still ranked, {moved}"
    return Finding(_level(ranks and near), words, _largest(np.abs(found.gain)))


def sometimes_first(found: Scoring, limit: float) -> Finding:
    """The marked rows come first in more than a share of ``limit`` of their groups."""
    chances = first_places(found.after, found.rows["group_id"], 1)
    even = first_places(np.zeros(len(chances)), found.rows["group_id"], 1)
    groups, by_chance = int(found.marked.sum()), float(even[found.marked].sum())
    if by_chance < _FIRST_BY_CHANCE:
        return Finding(SKIP, f"{groups} groups of two or more, {by_chance:.1f} first places by "
                       f"chance; {_FIRST_BY_CHANCE:.0f} are wanted")  # fmt: skip
    share = float(chances[found.marked].sum()) / groups
    words = (f"first in {share:.1%} of {groups} groups, {by_chance / groups:.1%} by chance, "
             f"{_won(found.before, found) / groups:.1%} as they were")  # fmt: skip
    return Finding(_level(share > limit), words, _largest(_among(-found.gain, found)))


def odds_of_first(found: Scoring, limit: float) -> Finding:
    """The odds of the marked rows of a group to hold its first place rise by ``limit`` at most.

    Odds, because a share that is already high cannot rise by any factor; half a group is added to
    both sides (Haldane, 1956), so that none is infinite.
    """
    groups = len(np.unique(_marked_groups(found)))
    if groups < _FIRST_BY_CHANCE:
        return Finding(SKIP, f"{groups} groups show several hosts; {_FIRST_BY_CHANCE:.0f} are "
                       "wanted")  # fmt: skip
    shares, odds = [], []
    for scores in (found.before, found.after):
        won = _won(scores, found)
        shares.append(won / groups)
        odds.append((won + 0.5) / (groups - won + 0.5))
    factor = odds[1] / odds[0]
    words = (f"first in {shares[0]:.1%} of {groups} groups, then in {shares[1]:.1%}: "
             f"{factor:.2f} times the odds")  # fmt: skip
    return Finding(_level(factor <= limit), words, _largest(_among(found.gain, found)))


def not_higher(found: Scoring, limit: float) -> Finding:
    """The mean score rises by ``limit`` standard deviations of the scores at most."""
    rise, words = _mean_gain(found)
    return Finding(_level(rise <= limit), words, _largest(_among(found.gain, found)))


def not_lower(found: Scoring, limit: float) -> Finding:
    """The mean score falls by ``limit`` standard deviations of the scores at most."""
    rise, words = _mean_gain(found)
    return Finding(_level(-rise <= limit), words, _largest(_among(-found.gain, found)))


def _marked_groups(found: Scoring) -> npt.NDArray[np.generic]:
    """The groups of the marked rows."""
    marked = found.rows["group_id"].filter(pa.array(found.marked))
    return np.asarray(marked.to_pylist(), dtype=np.str_)


def _mean_gain(found: Scoring) -> tuple[float, str]:
    """In standard deviations of the scores as they were, and in words."""
    gain, spread = float(found.gain[found.marked].mean()), float(found.before.std())
    relative = gain / spread if spread else gain
    return relative, f"mean score {gain:+.4g}, {relative:+.3f} standard deviations"


def _won(scores: Floats, found: Scoring) -> float:
    """First places expected of the marked rows."""
    return float(first_places(scores, found.rows["group_id"], 1)[found.marked].sum())


def _differing(scores: Floats, rows: pa.Table) -> npt.NDArray[np.bool_]:
    """In which groups (G,) scores are not all the same."""
    by = grouped(rows["group_id"])
    lying = scores[by.order] if len(by.order) else scores
    starts = by.starts[:-1]
    return np.maximum.reduceat(lying, starts) > np.minimum.reduceat(lying, starts)


def _among(values: Floats, found: Scoring) -> Floats:
    return np.where(found.marked, values, -np.inf)


def _largest(values: Floats) -> int:
    return int(np.argmax(values))


def _level(right: bool) -> str:
    return PASS if right else FAIL
