"""Metrics of an order, one value a group; exact where scores are tied.

Rows of equal scores have no order. Every metric here is its expected value over all orders of the
ties, each being as likely as any other: McSherry and Najork, Computing Information Retrieval
Performance Measures Efficiently in the Presence of Tied Scores, ECIR 2008. A group whose labels are
all equal is NaN (see :class:`models.metrics.GroupValues`).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from models.metrics.groups import (
    Column,
    Floats,
    Groups,
    GroupValues,
    binary,
    checked_rows,
    grouped,
    over_groups,
)
from models.metrics.ranking_kernels import AUC, HITS, MAP, MRR, NDCG, ranking_kernel

__all__ = [
    "exponential_gains",
    "gauc",
    "group_auc",
    "map_at_ks",
    "mrr_at_ks",
    "ndcg_at_k",
    "ndcg_at_ks",
    "precision_at_ks",
    "recall_at_ks",
]


def exponential_gains(highest: int) -> tuple[float, ...]:
    """2 ** g - 1 for the grades g = 0 .. ``highest``: the gains of Burges et al., Learning to Rank
    using Gradient Descent, ICML 2005, section 7."""
    return tuple(2.0**grade - 1 for grade in range(highest + 1))


def ndcg_at_ks(
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    groups: Column | Groups,
    ks: Sequence[int],
    gains: Sequence[float] | None = None,
) -> GroupValues:
    """NDCG at every cut-off of ``ks``: values (G, K).

    The gain of a row is its label (at least 0), or ``gains[label]`` where labels are grades
    0, 1, ...; its discount is 1 / log2(1 + rank), and the ideal order is by gain (Järvelin and
    Kekäläinen, TOIS 2002). Rows with equal scores share the mean of the discounts of the ranks that
    they occupy.

    Raises:
        ValueError: for NaN, a gain that is negative or infinite, a label that is no grade of
            ``gains``, a cut-off below 1, or lengths that differ.
    """
    y, s = checked_rows(labels, scores, groups)
    if gains is not None:
        y = _gained(y, np.asarray(gains, dtype=np.float64))
    return _at_cuts(NDCG, y, s, groups, ks)


def _gained(grades: Floats, gains: Floats) -> Floats:
    codes = grades.astype(np.int64)
    wrong = (codes != grades) | (codes < 0) | (codes >= len(gains))
    if wrong.any():
        odd = grades[wrong][0]
        raise ValueError(f"a label is {odd}; grades 0 to {len(gains) - 1} have gains")
    found: Floats = gains[codes]
    return found


def ndcg_at_k(
    labels: npt.ArrayLike,
    scores: npt.ArrayLike,
    groups: Column | Groups,
    k: int,
    gains: Sequence[float] | None = None,
) -> GroupValues:
    """NDCG at ``k``, values (G,); see :func:`ndcg_at_ks`."""
    found = ndcg_at_ks(labels, scores, groups, (k,), gains)
    return found._replace(values=found.values[:, 0])


def map_at_ks(
    labels: npt.ArrayLike, scores: npt.ArrayLike, groups: Column | Groups, ks: Sequence[int]
) -> GroupValues:
    """Average precision at every cut-off: values (G, K); its mean over groups is MAP@k.

    The sum of the precisions at the ranks, up to k, of the rows with a label above 0, over how
    many such rows the group has (as trec_eval's map_cut; others divide by at most k).

    Of t tied rows on the ranks a + 1 .. a + t, r being relevant and h relevant rows above them,
    rank a + i adds r / t x (h + 1 + (i - 1)(r - 1) / (t - 1)) / (a + i): the chance that it is
    relevant, times the precision that is expected there when it is.

    Raises:
        ValueError: as :func:`ndcg_at_ks`.
    """
    y, s = checked_rows(labels, scores, groups)
    return _at_cuts(MAP, y, s, groups, ks)


def mrr_at_ks(
    labels: npt.ArrayLike, scores: npt.ArrayLike, groups: Column | Groups, ks: Sequence[int]
) -> GroupValues:
    """Reciprocal rank, at every cut-off, of the first row with a label above 0: values (G, K); 0
    where it comes after k. Its mean over groups is MRR@k.

    Of t tied rows with r relevant, the i-th is the first relevant one with the chance
    C(t - i, r - 1) / C(t, r).

    Raises:
        ValueError: as :func:`ndcg_at_ks`.
    """
    y, s = checked_rows(labels, scores, groups)
    return _at_cuts(MRR, y, s, groups, ks)


def recall_at_ks(
    labels: npt.ArrayLike, scores: npt.ArrayLike, groups: Column | Groups, ks: Sequence[int]
) -> GroupValues:
    """Share of the rows with a label above 0 that are among the first k: values (G, K).

    Of t tied rows of which only m are among the first k, each counts m / t.

    Raises:
        ValueError: as :func:`ndcg_at_ks`.
    """
    y, s = checked_rows(labels, scores, groups)
    everything = max(len(y), 1)
    found = _at_cuts(HITS, y, s, groups, [*ks, everything])
    return found._replace(values=found.values[:, :-1] / found.values[:, -1:])


def precision_at_ks(
    labels: npt.ArrayLike, scores: npt.ArrayLike, groups: Column | Groups, ks: Sequence[int]
) -> GroupValues:
    """Share of rows with a label above 0 among k, also where a group is shorter (as trec_eval):
    values (G, K); ties as in :func:`recall_at_ks`.

    Raises:
        ValueError: as :func:`ndcg_at_ks`.
    """
    y, s = checked_rows(labels, scores, groups)
    found = _at_cuts(HITS, y, s, groups, ks)
    return found._replace(values=found.values / np.asarray(ks, dtype=np.float64))


def _at_cuts(
    metric: int, y: Floats, s: Floats, groups: Column | Groups, ks: Sequence[int]
) -> GroupValues:
    cuts = np.asarray(ks, dtype=np.int64)
    if not len(cuts) or cuts.min() < 1:
        raise ValueError(f"cut-offs {list(ks)} must be at least 1")
    if len(y) and (y.min() < 0 or np.isinf(y.max())):
        odd = y.min() if y.min() < 0 else y.max()
        raise ValueError(f"a label is {odd}; gains must not be negative, and be finite")
    by = grouped(groups)
    values = np.empty((len(by.ids), len(cuts)))

    def part(first: int, last: int) -> None:
        ranking_kernel(metric, y, s, by.order, by.starts, cuts, first, last, values)

    over_groups(by, part)
    return GroupValues(values, by.ids, by.sizes)


def group_auc(labels: npt.ArrayLike, scores: npt.ArrayLike, groups: Column | Groups) -> GroupValues:
    """Area under the ROC curve inside each group, (G,); NaN where a group has one class only.

    The share of pairs of a positive and a negative that are in order; a tie counts one half.

    Raises:
        ValueError: for NaN, labels other than 0 and 1, or lengths that differ.
    """
    y, s = checked_rows(labels, scores, groups)
    binary(y)
    found = _at_cuts(AUC, y, s, groups, (1,))
    return found._replace(values=found.values[:, 0])


def gauc(labels: npt.ArrayLike, scores: npt.ArrayLike, groups: Column | Groups) -> float:
    """Mean AUC of the groups that have both labels, weighted by their rows; NaN without any.

    Zhou et al., Deep Interest Network for Click-Through Rate Prediction, KDD 2018, equation 6.
    """
    found = group_auc(labels, scores, groups)
    there = ~np.isnan(found.values)
    if not there.any():
        return float("nan")
    return float(np.average(found.values[there], weights=found.sizes[there]))
