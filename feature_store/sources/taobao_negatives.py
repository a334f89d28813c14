"""Items that a user did not act on, drawn by their popularity within an hour.

The items of a user are drawn by successive sampling: one after the other, with the probability of
its share of the hour's views among those still free for that user; which of the user's views an
item stands beside means nothing. Rejection does it for nearly everybody; users for whom few popular
items are free get the rest by exponential races (Efraimidis and Spirakis, "Weighted random sampling
with a reservoir", 2006), which have the same distribution.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

__all__ = ["draw_negatives"]

_ROUNDS: Final = 16
_CELLS: Final = 2_000_000  # users x items that are held at a time in the exact draw

Ints = npt.NDArray[np.int64]


def draw_negatives(
    users: Ints,
    items: Ints,
    acted: tuple[Ints, Ints],
    negatives: int,
    random: np.random.Generator,
) -> Ints:
    """Items to show beside n views, by popularity among the views.

    Args:
        users, items: of the n views of one hour; their order decides which draw is whose.
        acted: m users and m items of that hour that must not be paired; holds the views as well.
        negatives: items wanted per view.

    Returns:
        n x ``negatives`` items. A user gets no item twice while there are others; -1 stands where
        every item is one that the user acted on.
    """
    count = len(users)
    if not count or not negatives:
        return np.full((count, negatives), -1, np.int64)
    pool, views = np.unique(items, return_counts=True)
    people, person = np.unique(users, return_inverse=True)
    owner = np.repeat(person, negatives)  # of each place to fill
    taken = _forbidden(acted, people, pool)
    drawn = np.full(len(owner), -1, np.int64)
    bounds = np.cumsum(views)
    open_places = np.arange(len(owner))
    for _ in range(_ROUNDS):
        if not len(open_places):
            break
        ticket = random.integers(bounds[-1], size=len(open_places))
        item = np.searchsorted(bounds, ticket, side="right")
        pair = owner[open_places] * len(pool) + item
        fresh = ~_is_in(pair, taken)
        fresh &= _is_first(pair)
        drawn[open_places[fresh]] = item[fresh]
        taken = np.sort(np.concatenate([taken, pair[fresh]]))
        open_places = open_places[~fresh]
    if len(open_places):
        forbidden = _forbidden(acted, people, pool)
        _fill(drawn, open_places, owner, taken, forbidden, views, random)
    return np.where(drawn < 0, -1, pool[drawn]).reshape(count, negatives)


def _forbidden(acted: tuple[Ints, Ints], people: Ints, pool: Ints) -> Ints:
    """The pairs, as person * items + item, that must not be drawn; sorted."""
    who, what = acted
    person = np.searchsorted(people, who).clip(max=len(people) - 1)
    item = np.searchsorted(pool, what).clip(max=len(pool) - 1)
    known = (people[person] == who) & (pool[item] == what)
    return np.unique(person[known] * len(pool) + item[known])


def _is_in(values: Ints, ordered: Ints) -> npt.NDArray[np.bool_]:
    if not len(ordered):
        return np.zeros(len(values), bool)
    place = np.searchsorted(ordered, values).clip(max=len(ordered) - 1)
    found: npt.NDArray[np.bool_] = ordered[place] == values
    return found


def _is_first(values: Ints) -> npt.NDArray[np.bool_]:
    first = np.zeros(len(values), bool)
    first[np.unique(values, return_index=True)[1]] = True
    return first


def _fill(
    drawn: Ints,
    places: Ints,
    owner: Ints,
    taken: Ints,
    forbidden: Ints,
    views: Ints,
    random: np.random.Generator,
) -> None:
    """Fill ``places`` of ``drawn`` by exponential races over the items that are free; those of a
    user for whom none is left begin anew with the items that are not forbidden."""
    size = len(views)
    waiting, place_user = np.unique(owner[places], return_inverse=True)
    step = max(_CELLS // size, 1)
    for start in range(0, len(waiting), step):
        block = waiting[start : start + step]
        key = random.exponential(size=(len(block), size)) / views
        cells = block[:, None] * size + np.arange(size)
        key[_is_in(cells.ravel(), taken).reshape(cells.shape)] += 1e9  # after all free ones
        barred = _is_in(cells.ravel(), forbidden).reshape(cells.shape)
        key[barred] = np.inf
        order = np.argsort(key, axis=1)
        usable = size - barred.sum(axis=1)
        mine = np.flatnonzero((place_user >= start) & (place_user < start + step))
        row = place_user[mine] - start
        rank = _rank_within(row)
        filled = usable[row] > 0
        row, rank, target = row[filled], rank[filled], places[mine][filled]
        drawn[target] = order[row, rank % usable[row]]


def _rank_within(groups: Ints) -> Ints:
    """How many earlier places belong to the same group."""
    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    new = np.r_[True, ordered[1:] != ordered[:-1]]
    starts = np.flatnonzero(new)
    ranks = np.empty(len(groups), np.int64)
    ranks[order] = np.arange(len(groups)) - starts[np.cumsum(new) - 1]
    return ranks
