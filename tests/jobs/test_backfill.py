"""Hours ingested forward, in reverse, as a range and by two runs at once end in the same tables."""

from __future__ import annotations

import datetime as dt
import random
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from feature_store import hours as hr
from jobs.ingest_events import ingest
from jobs.support.arguments import job_parser
from jobs.support.settings import load_settings
from tests.jobs.conftest import HOUR, Project, event

HOURS = hr.hour_range(HOUR, hr.add(HOUR, 5))


def log() -> list[dict[str, Any]]:
    """Six hours with late arrivals, duplicates within and across hours, and rows too old."""
    draw, rows = random.Random(9), []
    for hour in HOURS:
        for number in range(40):
            arrived = draw.uniform(0, 59.9)
            happened = arrived - draw.choice([0, 0, 1, 30, 100])
            rows.append(event(number, hour, arrived=arrived, happened=happened))
    rows += [
        {**row, "ingested_at": row["ingested_at"] + dt.timedelta(minutes=draw.choice([0, 70]))}
        for row in draw.sample(rows, 30)
    ]
    rows += [event(900 + n, HOURS[3], happened=-600.0) for n in range(3)]
    draw.shuffle(rows)
    return rows


def run(project: Project, hours: Sequence[str], token: str) -> None:
    parser = job_parser("ingest_events", "test", "none")
    settings = load_settings(parser.parse_args(project.arguments("--hour", hours[0])))
    store = project.store()
    ingest(store, settings, hours, token, False)
    store.close()


def forward(project: Project) -> None:
    for hour in HOURS:
        run(project, [hour], f"forward {hour}")


def reverse(project: Project) -> None:
    for hour in reversed(HOURS):
        run(project, [hour], f"reverse {hour}")


def as_a_range(project: Project) -> None:
    run(project, HOURS, "range")


def beside_a_live_run(project: Project) -> None:
    """A backfill of the first hours in one thread, the live hours in another."""
    failed: list[BaseException] = []

    def work(hours: Sequence[Sequence[str]], name: str) -> None:
        try:
            for some in hours:
                run(project, some, f"{name} {some[0]}")
        except BaseException as error:
            failed.append(error)
            raise

    run(project, HOURS[-1:], "live before")
    threads = [
        threading.Thread(target=work, args=([HOURS[:3]], "backfill")),
        threading.Thread(target=work, args=([[h] for h in HOURS[3:]], "live")),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


def made(folder: Path, way: Callable[[Project], None]) -> dict[str, Any]:
    folder.mkdir()
    project = Project(folder)
    project.configure(ingest={"max_bad_share": 0.5})
    project.write(log())
    way(project)
    return project.state()


@pytest.mark.parametrize("way", [reverse, as_a_range, beside_a_live_run])
def test_the_order_of_ingestion_changes_nothing(
    way: Callable[[Project], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("RANKMILL_CONFIG", "RANKMILL_DATA", "RANKMILL_WAREHOUSE", "RANKMILL_CATALOG_URI"):
        monkeypatch.delenv(name, raising=False)
    expected = made(tmp_path / "forward", forward)
    assert len(expected["events hours"]) == len(HOURS)
    assert {row["reason"] for row in expected["quarantine rows"]} == {"late"}
    assert sum(hours[0] for hours in expected["events hours"].values()) == 40 * len(HOURS)
    assert made(tmp_path / "other", way) == expected
