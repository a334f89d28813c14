"""A store of the days before one day and of that day: what is fitted on, and what is told."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pyarrow as pa

from benchmarks.kuairand import TEST_DATE, store_of_the_week
from feature_store import hours as hr
from feature_store.services import FeatureService
from feature_store.sources.simulator import MarketConfig, write_simulation
from feature_store.tables import Store
from feature_store.training_set import training_set
from jobs.support.arguments import job_parser
from jobs.support.settings import Settings, load_settings

__all__ = ["SOURCES", "HeldOutDay", "held_out_day"]

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("kuairand", "simulator")
_DAY = 24
_MARKET = replace(MarketConfig(), start="2026-11-08T16")  # midnight in UTC+8
_MARKET_TEST = "2026-11-11"
_MARKET_DAYS = 3


@dataclass(frozen=True)
class HeldOutDay:
    """Samples and outcomes of a source, made by Rankmill's own jobs.

    Attributes:
        first: the first hour of all.
        told: the hours of the day that nothing is fitted on.
        end: the hour after the last; the cut of the told day's labels.
        market: the simulated one, if it is simulated.
    """

    source: str
    settings: Settings
    store: Store
    first: str
    told: tuple[str, ...]
    end: str
    market: MarketConfig | None

    @property
    def cut(self) -> str:
        """The start of the told day: what is fitted knows nothing from here on."""
        return self.told[0]

    def rows(
        self, first: str, end: str, service: FeatureService | None = None, cut: str | None = None
    ) -> pa.Table:
        """The training set of [first, end) with labels cut at ``cut``, by default ``end``; all
        features unless a service says which."""
        source = self.settings.open_source()
        given = () if service is None else (service,)
        return training_set(
            self.store, first, hr.add(end, -1), cut or end, source.windows, *given,
            time_zone=source.time_zone,
        )  # fmt: skip

    def fitted_on(self, service: FeatureService | None = None) -> pa.Table:
        """The rows of the days before the told one."""
        return self.rows(self.first, self.cut, service)

    def told_rows(self, service: FeatureService | None = None) -> pa.Table:
        """The rows of the told day."""
        return self.rows(self.told[0], hr.add(self.told[-1], 1), service, self.end)


@contextlib.contextmanager
def held_out_day(source: str, data: Path, ripening_days: int = 0) -> Iterator[HeldOutDay]:
    """KuaiRand's 25 April to 1 May 2022, or three simulated days; the last one is told.

    Args:
        data: the folder that KuaiRand's lies in.
        ripening_days: simulated days after the told one, in which its slow actions happen.
    """
    with tempfile.TemporaryDirectory(prefix="rankmill-bench-") as scratch:
        market, config, folder, tested = None, "kuairand", data / "kuairand", TEST_DATE
        if source == "simulator":
            market, config, tested = _MARKET, "demo", _MARKET_TEST
            folder = Path(scratch) / "market"
            hours = _DAY * (_MARKET_DAYS + ripening_days)
            write_simulation(market, folder, hours, lambda *_: None, processes=2)
        arguments = ["--config", str(ROOT / "conf" / f"{config}.yaml"), "--data", str(folder)]
        settings = load_settings(job_parser("bench", "", "").parse_args(arguments))
        opened = settings.open_source()
        first, last = opened.span()
        told = tuple(h for h in hr.date_hours(tested, opened.time_zone) if first <= h <= last)
        with store_of_the_week(first, last, settings) as store:
            yield HeldOutDay(source, settings, store, first, told, hr.add(last, 1), market)
