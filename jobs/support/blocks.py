"""Hours as blocks that one task can hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

__all__ = ["TOGETHER", "WIDE", "blocks", "fit_tasks"]

TOGETHER: Final = 500_000
"""Events that one task holds at once."""

WIDE: Final = 100_000
"""Events whose samples one task holds at once where Spark moves the rows: they travel as many rows,
and have hundreds of columns when they are put together."""

_LEAST: Final = 50_000
"""Fewer are not worth a task of their own, which reads what it needs beside them once more."""


def fit_tasks(sizes: Mapping[str, int]) -> bool:
    """Whether one task can hold any of the hours; of larger ones Spark has to move the rows."""
    return max(sizes.values(), default=0) <= TOGETHER


def blocks(sizes: Mapping[str, int], tasks: int) -> Iterator[list[str]]:
    """The hours of ``sizes`` (events by hour), in order, in blocks for ``tasks`` or more."""
    limit = min(TOGETHER, max(_LEAST, -(-sum(sizes.values()) // tasks)))
    block: list[str] = []
    held = 0
    for hour in sorted(sizes):
        if block and held + sizes[hour] > limit:
            yield block
            block, held = [], 0
        block.append(hour)
        held += sizes[hour]
    if block:
        yield block
