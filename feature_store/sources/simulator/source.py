"""The adapter of simulated logs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pyarrow as pa

from feature_store import hours
from feature_store.sources.base import DEFAULT_WINDOWS, SourceError
from feature_store.sources.parquet import ParquetSource
from feature_store.sources.simulator.behaviour import ACTIONS
from feature_store.sources.simulator.config import TIME_ZONE
from feature_store.sources.simulator.writer import MANIFEST, read_manifest

__all__ = ["SimulatorSource"]


class SimulatorSource(ParquetSource):
    """What ``jobs/simulate_events.py`` wrote into one folder, as far as its manifest says.

    Args:
        path: the folder that was the job's ``--out``.
    """

    name: ClassVar[str] = "simulator"

    def __init__(self, *, path: str | Path) -> None:
        windows = {action: DEFAULT_WINDOWS[action] for action in ACTIONS[1:]}
        super().__init__(path=path, windows=windows, time_zone=TIME_ZONE)

    def check(self, first: str | None = None, last: str | None = None, /) -> None:
        """As for Parquet, and the simulation must be complete."""
        self.span()
        super().check(first, last)

    def span(self) -> tuple[str, str]:
        """The hours that the manifest calls complete."""
        manifest = read_manifest(Path(self.path))
        how = f"run: python jobs/simulate_events.py --out {self.path}"
        if manifest is None:
            raise SourceError(f"{self.path} holds no simulation (no {MANIFEST}); {how}")
        if not manifest["hours"]:
            raise SourceError(f"the simulation in {self.path} is not finished; once more, {how}")
        start = str(manifest["config"]["start"])
        return start, hours.add(start, int(manifest["hours"]) - 1)

    def events(self, first: str, last: str) -> Iterator[pa.RecordBatch]:
        """See :class:`feature_store.sources.base.Source`; nothing beyond :meth:`span`."""
        begin, end = self.span()
        yield from super().events(max(first, begin), min(last, end))

    def entities(self, table: str, first: str, last: str) -> Iterator[pa.RecordBatch]:
        """See :class:`feature_store.sources.base.Source`; nothing beyond :meth:`span`."""
        begin, end = self.span()
        yield from super().entities(table, max(first, begin), min(last, end))
