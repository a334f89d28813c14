"""What a gate declaration says, and nothing of how it is measured or judged."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

__all__ = ["UNBOUNDED", "Bounds", "GateError", "GateRule"]

Bounds = tuple[float, float]
"""What is allowed, from and to, both included."""

UNBOUNDED: Final[Bounds] = (-math.inf, math.inf)


class GateError(ValueError):
    """A gate that is declared wrongly; the message names it, what was seen and what is known."""


@dataclass(frozen=True)
class GateRule:
    """One gate: what is measured of an hour, and which measures warn or fail.

    Attributes:
        name: unique; the gate's name in `gate_results` and in messages.
        kind: a key of :data:`feature_store.gate_kinds.KINDS`.
        description: one line for people.
        column: the column of `events` that is looked at.
        action: only rows with this action are looked at; all rows without it.
        warn, fail: allowed values. Of a kind that compares by ratio, of value / expected; else of
            value - expected.
        expected: what is usual, in place of what earlier hours say.
        minimum, above, maximum: bounds of a column's values; ``above`` is exclusive.
        min_rows: an hour with fewer rows (impressions, for a rate) is not judged.
        min_expected: an hour for which fewer outcomes are expected is not judged.
        min_history: so many earlier hours must have been measured before a gate judges.
        max_values: distinct values that are kept of a distribution; the rest is one value.
    """

    name: str
    kind: str
    description: str
    column: str = ""
    action: str | None = None
    warn: Bounds = UNBOUNDED
    fail: Bounds = UNBOUNDED
    expected: float | None = None
    minimum: float = -math.inf
    above: float = -math.inf
    maximum: float = math.inf
    min_rows: int = 100
    min_expected: float = 0.0
    min_history: int = 24
    max_values: int = 50

    def level(self, measure: float) -> str:
        """``pass``, ``warn`` or ``fail``."""
        for level, (low, high) in (("fail", self.fail), ("warn", self.warn)):
            if not low <= measure <= high:
                return level
        return "pass"

    def bounds(self, level: str) -> Bounds:
        """What is allowed without ``level`` (``warn`` or ``fail``)."""
        return self.fail if level == "fail" else self.warn
