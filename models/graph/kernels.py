"""Compiled loops of walks and skip-gram.

Shapes: N nodes of all types, E directed edges, D dimensions, W walks of length L, P parts.

A table of choices is (rows, 3) uint32: of a place drawn uniformly in its row, the threshold below
which the choice of the second column is taken, else that of the third (Vose's alias method). All
three share a cache line.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from models.kernels import compiled, compiled_loosely, mix

__all__ = [
    "NOBODY", "alias_tables", "count_visits", "group_loss", "train_block", "walk",
]  # fmt: skip

Choices = npt.NDArray[np.uint32]
Ints = npt.NDArray[np.int64]
Nodes = npt.NDArray[np.int32]
Vectors = npt.NDArray[np.float32]

NOBODY = np.int32(-1)
"""What follows the last node of a walk that could not go on."""
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_WHOLE = np.float64(2.0**32)
_TOP = np.uint64(32)
_LOW = np.uint64(0xFFFFFFFF)
_SAMPLED = 32  # of so many groups, the loss of one is taken


@compiled
def _choose(choices: Choices, low: int, high: int, drawn: np.uint64) -> np.int64:
    """One of the choices in rows [low, high), from 64 random bits."""
    place = low + np.int64(((drawn >> _TOP) * np.uint64(high - low)) >> _TOP)
    below = np.uint32(drawn & _LOW) < choices[place, 0]
    return np.int64(choices[place, 1] if below else choices[place, 2])


@compiled
def alias_tables(starts: Ints, nodes: Nodes, weights: npt.NDArray[np.float64]) -> Choices:
    """Choices among the nodes of each row, in proportion to their positive weights.

    Args:
        starts: (rows + 1,) where each row begins in ``nodes`` and ``weights`` (E,).
    """
    choices = np.empty((len(nodes), 3), dtype=np.uint32)
    longest = 0
    for row in range(len(starts) - 1):
        longest = max(longest, starts[row + 1] - starts[row])
    share = np.empty(longest, dtype=np.float64)
    small = np.empty(longest, dtype=np.int64)
    large = np.empty(longest, dtype=np.int64)
    for row in range(len(starts) - 1):
        low, high = starts[row], starts[row + 1]
        size = high - low
        total = 0.0
        for place in range(low, high):
            total += weights[place]
        smalls = larges = 0
        for i in range(size):
            share[i] = weights[low + i] * size / total
            if share[i] < 1.0:
                small[smalls] = i
                smalls += 1
            else:
                large[larges] = i
                larges += 1
        while smalls > 0 and larges > 0:
            smalls -= 1
            less, more = small[smalls], large[larges - 1]
            choices[low + less, 0] = np.uint32(min(share[less] * _WHOLE, _WHOLE - 1.0))
            choices[low + less, 1] = nodes[low + less]
            choices[low + less, 2] = nodes[low + more]
            share[more] -= 1.0 - share[less]
            if share[more] < 1.0:
                larges -= 1
                small[smalls] = more
                smalls += 1
        for i in range(larges + smalls):
            last = large[i] if i < larges else small[i - larges]
            choices[low + last, 0] = np.uint32(_WHOLE - 1.0)
            choices[low + last, 1] = nodes[low + last]
            choices[low + last, 2] = nodes[low + last]
    return choices


@compiled
def mean_of_known(
    first: int,
    starts: Ints,
    nodes: Nodes,
    weights: npt.NDArray[np.float64],
    known: npt.NDArray[np.bool_],
    vectors: Vectors,
    total: Vectors,
    weight: npt.NDArray[np.float64],
) -> None:
    """Add to ``total`` (N, D) and ``weight`` (N,), of nodes that are not ``known``, their known
    neighbours' vectors times the edges' weights, and the weights."""
    for row in range(len(starts) - 1):
        node = first + row
        if known[node]:
            continue
        for place in range(starts[row], starts[row + 1]):
            if known[nodes[place]]:
                weight[node] += weights[place]
                for i in range(vectors.shape[1]):
                    total[node, i] += weights[place] * vectors[nodes[place], i]


@compiled
def walk(
    starts: Nodes,
    ways: Ints,
    first: int,
    last: int,
    rows: Ints,
    steps: Ints,
    around: Ints,
    edges: Ints,
    choices: Choices,
    seed: np.uint64,
    walks: Nodes,
) -> None:
    """Fill ``walks`` [first, last) (W, L) with the walks that begin at ``starts``.

    Args:
        ways: (W,) which metapath each follows; ``steps`` (metapaths + 1,) says where its steps
            begin in ``rows`` and ``around``.
        rows: by step the first row of its table in ``edges``, ``around`` the first node of the
            type that it goes from.
        edges: (tables' rows + 1,) where the neighbours of each row begin in ``choices`` (E, 3).
        seed: of these walks; each draws from its own stream.
    """
    length = walks.shape[1]
    for number in range(first, last):
        state = mix(seed + np.uint64(number) * _GOLDEN)
        node = np.int64(starts[number])
        begin, end = steps[ways[number]], steps[ways[number] + 1]
        step = begin
        walks[number, 0] = node
        reached = 1
        while reached < length:
            row = rows[step] + node - around[step]
            low, high = edges[row], edges[row + 1]
            if low == high:
                break
            state += _GOLDEN
            node = _choose(choices, low, high, mix(state))
            walks[number, reached] = node
            reached += 1
            step += 1
            if step == end:
                step = begin
        for place in range(reached, length):
            walks[number, place] = NOBODY


@compiled
def count_visits(walks: Nodes, counts: Ints) -> None:
    """Add to ``counts`` (N,) how often each node stands in ``walks`` (W, L)."""
    for number in range(walks.shape[0]):
        for place in range(walks.shape[1]):
            node = walks[number, place]
            if node < 0:
                break
            counts[node] += 1


@compiled
def _sigmoid(x: Any) -> Any:
    """1 / (1 + exp(-x)), never overflowing."""
    if x >= np.float32(0.0):
        return np.float32(1.0) / (np.float32(1.0) + np.exp(-x))
    grown = np.exp(x)
    return grown / (np.float32(1.0) + grown)


# Rows are named by their number: a slice would count references, which threads fight over.


@compiled_loosely
def _dot(inner: Vectors, node: int, outer: Vectors, other: int) -> Any:
    total = inner[0, 0] * 0
    for i in range(inner.shape[1]):
        total += inner[node, i] * outer[other, i]
    return total


@compiled_loosely
def _pull(
    step: np.float32, inner: Vectors, node: int, outer: Vectors, other: int, kept: Vectors
) -> None:
    """Move a context by ``step`` along the center; add what moves the center to ``kept``."""
    for i in range(len(kept)):
        before = outer[other, i]
        kept[i] += step * before
        outer[other, i] = before + step * inner[node, i]


@compiled
def train_group(
    inner: Vectors,
    node: int,
    outer: Vectors,
    contexts: Nodes,
    found: int,
    noise: Nodes,
    many: int,
    rate: float,
    kept: Vectors,
) -> None:
    """One step on a center, ``node``, and the contexts that share its noise.

    Descends -sum log s(c.o) - found * sum log s(-c.n) (Mikolov et al., NIPS 2013, equation 4) with
    c the center's ``inner`` vector, o the ``outer`` ones of the first ``found`` of ``contexts`` and
    n those of the first ``many`` of ``noise``, which is drawn once for all contexts and therefore
    weighed by their number (Ji et al., Parallelizing Word2Vec in Shared and Distributed Memory,
    TPDS 2019). ``kept`` (D,) is room to work in.
    """
    single = kept.dtype.type  # a wider step would widen every vector
    kept[:] = 0.0
    for k in range(found):
        other = contexts[k]
        step = single((1.0 - _sigmoid(_dot(inner, node, outer, other))) * rate)
        _pull(step, inner, node, outer, other, kept)
    for k in range(many):
        other = noise[k]
        step = single(-_sigmoid(_dot(inner, node, outer, other)) * rate * found)
        _pull(step, inner, node, outer, other, kept)
    for i in range(len(kept)):
        inner[node, i] += kept[i]


@compiled
def group_loss(
    inner: Vectors, node: int, outer: Vectors, contexts: Nodes, found: int, noise: Nodes, many: int
) -> float:
    """What :func:`train_group` descends."""
    total = 0.0
    for k in range(found):
        total += np.log1p(np.exp(-np.float64(_dot(inner, node, outer, contexts[k]))))
    for k in range(many):
        total += found * np.log1p(np.exp(np.float64(_dot(inner, node, outer, noise[k]))))
    return total


@compiled
def _near(
    walks: Nodes, number: int, place: int, wide: Any, shift: Any, last: Any, theirs: int,
    contexts: Nodes,
) -> int:  # fmt: skip
    """Put the nodes at most ``wide`` from a place that are in part ``theirs`` in ``contexts``."""
    found = 0
    for other in range(max(place - wide, 0), min(place + wide + 1, walks.shape[1])):
        near = walks[number, other]
        if near < 0:
            break
        if other != place and (near >> shift) & last == theirs:
            contexts[found] = near
            found += 1
    return found


@compiled
def _draw(
    contexts: Nodes,
    found: int,
    kinds: npt.NDArray[np.uint8],
    pool: Nodes,
    filled: npt.NDArray[np.int64],
    number: int,
    shares: Ints,
    noise: Choices,
    first: int,
    parts: int,
    state: np.uint64,
    drawn: Nodes,
) -> int:
    """Put noise of the contexts' kinds in ``drawn``, but for what is a context itself.

    It is taken from the walk's ``pool`` (kinds, size) of noise, drawn when a walk, ``number``,
    first needs a kind: vectors that are used again and again stay near the processor.
    """
    many, size = 0, pool.shape[1]
    for k in range(len(drawn)):
        kind = np.int64(kinds[contexts[k % found]])
        if filled[kind] != number:
            filled[kind] = number
            share = kind * parts + first
            for i in range(size):
                state += _GOLDEN
                pool[kind, i] = _choose(noise, shares[share], shares[share + 1], mix(state))
        state += _GOLDEN
        node = pool[kind, np.int64(((mix(state) >> _TOP) * np.uint64(size)) >> _TOP)]
        there = False
        for i in range(found):
            there = there or contexts[i] == node
        if not there:
            drawn[many] = node
            many += 1
    return many


@compiled
def train_block(
    walks: Nodes,
    mine: int,
    theirs: int,
    parts: int,
    shift: int,
    inner: Vectors,
    outer: Vectors,
    kinds: npt.NDArray[np.uint8],
    shares: Ints,
    noise: Choices,
    window: int,
    negatives: int,
    pool_size: int,
    rate: float,
    seeds: tuple[np.uint64, np.uint64],
) -> tuple[float, int, int]:
    """Skip-gram over the pairs of ``walks`` (W, L) with a center in part ``mine`` and a context in
    part ``theirs``.

    Nodes are dealt to ``parts``, a power of two, in stretches of 2 ** ``shift``. Blocks that share
    neither part share no vector: they run side by side and leave what they leave one after another.

    Args:
        inner, outer: (N, D) vectors as center and as context, trained in place.
        kinds: (N,) which kind of noise a context is told from.
        shares: (kinds * parts + 1,) where the choices of a kind and part begin in ``noise``.
        pool_size: how much noise of a kind a walk has.
        window: of both sides; shrunk at random at every center, as word2vec does.
        seeds: of windows, the same in all blocks, and of noise.

    Returns:
        The loss of one in 32 centers with a context, summed; their pairs; and all pairs.
    """
    last, stretch = np.int32(parts - 1), np.int32(shift)
    contexts = np.empty(2 * window, dtype=np.int32)
    drawn = np.empty(negatives, dtype=np.int32)
    kept = np.empty(inner.shape[1], dtype=inner.dtype)
    kind_count = (len(shares) - 1) // parts
    pool = np.empty((kind_count, pool_size), dtype=np.int32)
    filled = np.full(kind_count, -1, dtype=np.int64)
    loss, told, pairs, centers = 0.0, 0, 0, 0
    for number in range(walks.shape[0]):
        widths = mix(seeds[0] + np.uint64(number) * _GOLDEN)
        state = mix(seeds[1] + np.uint64(number) * _GOLDEN)
        for place in range(walks.shape[1]):
            node = walks[number, place]
            if node < 0:
                break
            widths += _GOLDEN
            if (node >> stretch) & last != mine:
                continue
            wide = 1 + np.int64(((mix(widths) >> _TOP) * np.uint64(window)) >> _TOP)
            found = _near(walks, number, place, wide, stretch, last, theirs, contexts)
            if found == 0:
                continue
            state = mix(state + _GOLDEN)
            many = _draw(contexts, found, kinds, pool, filled, number, shares, noise, theirs, parts,
                         state, drawn)  # fmt: skip
            pairs += found
            centers += 1
            if centers % _SAMPLED == 0:
                loss += group_loss(inner, node, outer, contexts, found, drawn, many)
                told += found
            train_group(inner, node, outer, contexts, found, drawn, many, rate, kept)
    return loss, told, pairs
