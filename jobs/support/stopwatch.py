"""Where a job's time goes: seconds by step, for its summary."""

from __future__ import annotations

import time

__all__ = ["STEPS", "Stopwatch"]

STEPS = "seconds_by_step"
"""The key of a summary's details under which they stand."""


class Stopwatch:
    """Seconds by step, from when it was made: each step ends with its :meth:`lap`.

    >>> watch = Stopwatch()
    >>> watch.lap("read")
    >>> list(watch.seconds)
    ['read']
    """

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._since = time.monotonic()

    def lap(self, step: str) -> None:
        """Everything since the last lap was ``step``; laps of the same step add up."""
        now = time.monotonic()
        self.seconds[step] = round(self.seconds.get(step, 0.0) + now - self._since, 3)
        self._since = now
