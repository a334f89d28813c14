"""Is a model an hour worth it? Past hours served again by the trees of several cadences.

    python benchmarks/replay.py --data ../shared/data          # all sources
    python benchmarks/replay.py --source festival

``jobs/replay.py`` as anybody would call it, on stores made by Rankmill's own jobs. ``festival`` is
the simulated market with a shopping festival on 11 November: replayed are that day and the ones
before and after it, in UTC+8; ``simulator`` is the same market without one; ``kuairand`` is
KuaiRand from 26 April to 1 May 2022. In the market tastes swing within a day, and turn at the
festival's midnight: where hourly has something to win is known beforehand.

One JSON line a cadence beside the daily model: NDCG@10 of clicks, and the difference with its 95 %
bootstrap interval over the groups; AUC and log loss with intervals over the hours. Most groups of
KuaiRand have one impression, so there it is these that tell.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # benchmarks are not installed

from benchmarks.by_source import renewed, source_parser, sources_of  # noqa: E402
from benchmarks.kuairand import store_of_the_week  # noqa: E402
from feature_store import hours as hr  # noqa: E402
from feature_store.sources.simulator import MarketConfig, write_simulation  # noqa: E402
from feature_store.tables import Store  # noqa: E402
from jobs.replay import Replayed, replay  # noqa: E402
from jobs.support.arguments import job_parser  # noqa: E402
from jobs.support.cadences import BASELINE, CADENCES, cadences  # noqa: E402
from jobs.support.replay_page import CadenceLine  # noqa: E402
from jobs.support.settings import Settings, load_settings  # noqa: E402

RESULTS: Final = ROOT / "benchmarks" / "results" / "replay.jsonl"
PICTURES: Final = ROOT / "docs" / "pictures"
START: Final = "2026-11-08T16"  # midnight in UTC+8
FESTIVAL: Final = "2026-11-11"
SIMULATED_HOURS: Final = 96
TREES: Final = {
    "tasks": ["click"], "rounds": 150, "num_leaves": 31, "learning_rate": 0.1,
    "feature_fraction": 0.3,
}  # fmt: skip
SOURCES: Final = ("festival", "simulator", "kuairand")


@dataclass(frozen=True)
class Stored:
    """A source's samples, and the hours that are served again."""

    store: Store
    settings: Settings
    hours: list[str]


@contextlib.contextmanager
def stored(source: str, data: Path, days: int) -> Iterator[Stored]:
    """``days`` days of a source after its first, which is only learned from."""
    with contextlib.ExitStack() as stack:
        config, folder = "kuairand", data / "kuairand"
        if source != "kuairand":
            scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="rankmill-bench-"))
            festival = FESTIVAL if source == "festival" else ""
            config, folder = "demo", Path(scratch) / "market"
            market = replace(MarketConfig(), start=START, festival=festival)
            write_simulation(market, folder, SIMULATED_HOURS, lambda *_: None, processes=2)
        arguments = ["--config", str(ROOT / "conf" / f"{config}.yaml"), "--data", str(folder)]
        settings = clicks_only(load_settings(job_parser("bench", "", "").parse_args(arguments)))
        first, last = settings.open_source().span()
        begin = next(h for h in hr.hour_range(first, last) if starts_a_day(h, settings))
        hours = hr.hour_range(hr.add(begin, 24), min(last, hr.add(begin, 24 * (days + 1) - 1)))
        store = stack.enter_context(store_of_the_week(first, hours[-1], settings))
        yield Stored(store, settings, hours)


def clicks_only(settings: Settings) -> Settings:
    """The same trees for every source, on clicks."""
    return replace(
        settings, train=replace(settings.train, gbdt=TREES),
        evaluation=replace(settings.evaluation, labels=("click",)),
    )  # fmt: skip


def starts_a_day(hour: str, settings: Settings) -> bool:
    zone = settings.open_source().time_zone
    return hr.date_hours(hr.day_of(hour, zone).isoformat(), zone)[0] == hour


def line(source: str, hours: list[str], ours: CadenceLine, daily: CadenceLine) -> dict[str, Any]:
    """A cadence beside the daily one on the same groups."""
    return {
        "bench": "replay", "case": f"{source}: {ours.cadence}, {ours.label}",
        "ours": round(ours.ndcg.mean, 5), "peer": BASELINE, "peer_version": "same run",
        "theirs": round(daily.ndcg.mean, 5), "unit": "ndcg_at_10",
        "ratio": round(ours.ndcg.mean / daily.ndcg.mean, 4),
        "ours_peak_mb": None, "theirs_peak_mb": None,
        "quality": {
            "source": source, "cadence": ours.cadence, "label": ours.label,
            "difference": [round(value, 5) for value in ours.difference],
            "hours_better": [ours.better, ours.hours], "groups": ours.groups,
            "auc": [round(ours.auc, 5), round(daily.auc, 5)],
            "auc_difference": [round(value, 5) for value in ours.auc_difference],
            "log_loss": [round(ours.log_loss, 5), round(daily.log_loss, 5)],
            "log_loss_difference": [round(value, 5) for value in ours.log_loss_difference],
            "normalised_entropy":
                [round(ours.normalised_entropy, 5), round(daily.normalised_entropy, 5)],
            "fits": ours.fits, "fit_seconds": [round(ours.seconds, 1), round(daily.seconds, 1)],
            "first": hours[0], "last": hours[-1],
        },
        "repetitions": 1, "cores": os.cpu_count(),
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
    }  # fmt: skip


def lines(source: str, there: Stored, found: Replayed) -> Iterator[dict[str, Any]]:
    daily = {one.label: one for one in found.lines if one.cadence == BASELINE}
    for one in found.lines:
        if one.cadence != BASELINE:
            yield line(source, there.hours, one, daily[one.label])


def main() -> int:
    parser = source_parser(__doc__, SOURCES)
    parser.add_argument("--days", type=int, default=6, help="at most, of each [%(default)s]")
    parser.add_argument(
        "--cadences", type=cadences, default=cadences(",".join(CADENCES)), help="[all]"
    )
    given = parser.parse_args()
    for source in sources_of(given, SOURCES):
        with stored(source, given.data, given.days) as there:
            found = replay(there.store, there.settings, there.hours, given.cadences)
        if isinstance(found, str):
            raise SystemExit(f"{source}: {found}")
        renewed(RESULTS, source, lines(source, there, found))
        shown = found.figures["difference_by_hour_of_day"]
        shown.savefig(PICTURES / f"replay-{source}-difference-by-hour-of-day.png", dpi=80)
    return 0


if __name__ == "__main__":
    sys.exit(main())
