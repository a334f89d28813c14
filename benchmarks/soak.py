"""A week of hours at a compressed clock: do an hour's seconds, and what is kept, stay as they were?

    make bench-soak                                    # 168 hours; an hour or so on two cores
    make bench-soak ARGS="--hours 30 --folder /tmp/try --trial"

Every hour runs what the DAGs would: `ingest_events`, `validate_events`, `build_samples`,
`extract_features`, `train_gbdt`, `evaluate` and `promote`, and after the last hour of a business
day `maintain` and `mlflow gc`, on a PostgreSQL and an MLflow server that run all the time. The jobs
of a day are called in one process with one Spark session, as `bootstrap` does, and so is the check
that `promote` makes in a process of its own; plots are drawn in the last hour of a business day and
copied in the others. Starting eight processes and drawing two dozen plots takes the same seconds in
every hour, and would hide what grows. The model reads the service `item_statistics`. The day
before the first hour is filled set-wise, or as many as `--history` says.

Ages are counted in simulated time. Versions age by the hours of their data. Snapshots, files and
pages carry the time of this machine's clock, so `maintain` is told a `--now` by which exactly what
is 72 simulated hours old is three days old. Unreferenced files are kept as long, three days instead
of one: the rule allows no snapshot to be younger than that. So are pages and runs of pruned
versions, three days instead of 90, so that the week shows that they go.

A line per hour is kept in the folder; a run that was killed goes on with the next hour. Judged are
the hours of the last day beside those of the first, by wall seconds and by CPU seconds (other work
on the machine moves the first, not so much the second), and what every size grows by in an hour.
"""

from __future__ import annotations

import argparse
import datetime as dt
import io
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from matplotlib.figure import Figure
from small_stack import ROOT, CpuMeter, SmallStack, clear, memory_mb, small_stack
from soak_report import DAILY, FIRST_DAY, GC, lines, picture
from soak_sizes import measured

from feature_store import hours as hr
from feature_store.sources.simulator import MarketConfig, write_simulation
from local.settings import database_uri

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

RESULTS: Final = ROOT / "benchmarks" / "results" / "soak.jsonl"
PICTURE: Final = ROOT / "docs" / "pictures" / "soak.png"
NAME: Final = "gbdt_ranker"
START: Final = "2026-11-08T16"  # a business day begins here
KEPT_HOURS: Final = 72
CONFIGURATION: Final = {
    "source": {"name": "simulator"},
    "train": {
        "feature_service": "item_statistics",
        "gbdt": {"tasks": ["click"], "rounds": 20, "num_leaves": 15},
    },
    "evaluation": {"labels": ["click"], "resamples": 200},
    "maintenance": {
        "snapshot_days": KEPT_HOURS / 24,
        "unreferenced_hours": KEPT_HOURS,
        "record_days": KEPT_HOURS / 24,
    },
}
MARKET: Final = MarketConfig(
    start=START, requests_per_hour=120, users=2_000, items=1_000, rooms=100,
    new_items_per_day=0, new_rooms_per_day=0,
)  # fmt: skip


class Copied:
    """Plots as they were drawn when ``job`` last drew, by the order in which it does."""

    def __init__(self) -> None:
        self.drawn: dict[tuple[str, int], bytes] = {}
        self.job, self.number = "", 0
        self._savefig = Figure.savefig

    def start(self, job: str, anew: bool) -> None:
        """The plots that follow are of ``job``."""
        self.job, self.number = job, 0
        if anew:
            self.drawn = {key: text for key, text in self.drawn.items() if key[0] != job}

    def savefig(self, figure: Figure, file: Any, **options: Any) -> None:
        """In the place of `Figure.savefig`."""
        self.number += 1
        key = self.job, self.number
        if key not in self.drawn:
            kind = options.pop("format", None) or Path(file).suffix.removeprefix(".")
            kept = io.BytesIO()
            self._savefig(figure, kept, format=kind, **options)
            self.drawn[key] = kept.getvalue()
        if isinstance(file, io.StringIO):
            file.write(self.drawn[key].decode())
        elif isinstance(file, io.BytesIO):
            file.write(self.drawn[key])
        else:
            Path(file).write_bytes(self.drawn[key])


def checked_here(tracking_uri: str, version: Any) -> str | None:
    """`promote`'s mechanical check, in this process."""
    from models.base import ModelError
    from models.mechanical_check import check
    from models.registry import Registry, RegistryError

    try:
        check(Registry(tracking_uri), version.name, version.version)
    except (ModelError, RegistryError) as error:
        return str(error)
    return None


class Soak:
    """The jobs of an hour after the other, on one stack."""

    def __init__(self, place: SmallStack, hours: Sequence[str], kept: Path) -> None:
        self.place = place
        self.hours = hours
        self.kept = kept
        self.done: list[dict[str, Any]] = read_lines(kept)
        self.copied = Copied()
        self.own = CpuMeter(os.getpid())
        self.servers = {name: CpuMeter(pid) for name, pid in place.servers.items()}

    def run(self) -> None:
        """All hours that are not there yet."""
        from jobs import promote
        from jobs.support.session import spark_session

        settings = self.settings()
        promote._mechanical = checked_here
        Figure.savefig = lambda figure, file, **how: self.copied.savefig(figure, file, **how)
        with spark_session("soak", settings.spark) as spark:
            if not self.done:
                self.fill(spark)
            known = {line["hour"] for line in self.done}
            left = [hour for hour in self.hours if hour not in known]
            for number, hour in enumerate(left):
                line = self.one(spark, hour) | {"after_start": number == 0}
                self.done.append(line)
                with self.kept.open("a") as file:
                    file.write(json.dumps(line) + "\n")
                self.tell(line, len(left) - number - 1)

    def settings(self) -> Any:
        from jobs.support.settings import load_settings

        return load_settings(argparse.Namespace(**dict.fromkeys(
            ("config", "data", "warehouse", "catalog_uri", "tracking_uri"))))  # fmt: skip

    def fill(self, spark: SparkSession) -> None:
        """The hours before the first one, as `bootstrap` does it, without a model."""
        from jobs.build_samples import build
        from jobs.extract_features import extract
        from jobs.ingest_events import ingest
        from jobs.support.fencing import claim, run_token
        from jobs.validate_events import validate

        settings, token = self.settings(), run_token("soak")
        before = hr.hour_range(START, hr.add(self.hours[0], -1))
        zone = settings.open_source().time_zone
        with closing(settings.open_store()) as store:
            for day in range(0, len(before), 24):
                hours = before[day : day + 24]
                ingest(store, settings, hours, token, False)
                validate(store, settings, hours, token, "the first hours", False)
                writer = claim(store, "extract_features", hours, token)
                extract(spark, store, hours, writer, zone, False)
                writer = claim(store, "build_samples", hours, token)
                build(spark, store, settings, hours, writer, False)

    def one(self, spark: SparkSession, hour: str) -> dict[str, Any]:
        """Run an hour; its seconds by job, and what is there after it."""
        wall: dict[str, float] = {}
        cpu: dict[str, float] = {}
        before = self.cpu_of_servers()
        status = {}
        due = self.jobs(spark, hour)
        for job, call in due.items():
            self.copied.start(job, anew=DAILY in due)
            began, computed = time.monotonic(), self.own.seconds()
            status[job] = call().status
            wall[job] = round(time.monotonic() - began, 3)
            cpu[job] = round(self.own.seconds() - computed, 3)
        after = self.cpu_of_servers()
        cpu |= {name: round(after[name] - before[name], 3) for name in after}
        return {
            "hour": hour, "wall": wall, "cpu": cpu, "status": status, "ended": time.time(),
            "load": round(os.getloadavg()[0], 2), **measured(self.place),
            "memory_mb": {name: round(memory_mb(pid), 1)
                          for name, pid in {**self.place.servers, "jobs": os.getpid()}.items()},
        }  # fmt: skip

    def jobs(self, spark: SparkSession, hour: str) -> dict[str, Callable[[], Any]]:
        """What is due at ``hour``, in order."""
        from jobs.build_samples import build
        from jobs.evaluate import evaluate
        from jobs.extract_features import extract
        from jobs.ingest_events import ingest
        from jobs.maintain import maintain
        from jobs.promote import promote
        from jobs.support.fencing import claim, run_token
        from jobs.train_gbdt import train
        from jobs.validate_events import validate
        from models.registry import Registry

        settings, token, hours = self.settings(), run_token(f"soak-{hour}"), [hour]
        zone = settings.open_source().time_zone

        def opened(call: Callable[[Any], Any]) -> Callable[[], Any]:
            def alone() -> Any:
                with closing(settings.open_store()) as store:
                    return call(store)

            return alone

        due: dict[str, Callable[[Any], Any]] = {
            "ingest_events": lambda s: ingest(s, settings, hours, token, False),
            "validate_events": lambda s: validate(s, settings, hours, token, "soak", False),
            "build_samples": lambda s: build(
                spark, s, settings, hours, claim(s, "build_samples", hours, token), False),
            "extract_features": lambda s: extract(
                spark, s, hours, claim(s, "extract_features", hours, token), zone, False),
            "train_gbdt": lambda s: train(s, settings, NAME, hour, token, False),
            "evaluate": lambda s: evaluate(s, settings, NAME, hour, "hourly", token, False),
            "promote": lambda s: promote(s, settings, NAME, hour, token, False),
        }  # fmt: skip
        if hr.day_of(hour, zone) != hr.day_of(hr.add(hour, 1), zone):
            due[DAILY] = lambda s: maintain(
                s, Registry(settings.tracking()), settings, zone, hour, self.now(hour), token,
                False)  # fmt: skip
        calls = {name: opened(call) for name, call in due.items()}
        if DAILY in due:
            calls[GC] = self.collect
        return calls

    def collect(self) -> Any:
        """What an operator runs beside MLflow's database."""
        from jobs.support.summary import Summary

        uri = database_uri(self.place.stack, "mlflow")
        command = [str(self.place.stack.bin / "mlflow"), "gc", "--backend-store-uri", uri]
        subprocess.run(command, env=self.place.env, check=True, capture_output=True)
        return Summary(GC)

    def now(self, hour: str) -> dt.datetime:
        """The instant from which what ended ``KEPT_HOURS`` simulated hours ago is as old."""
        ended = {line["hour"]: line["ended"] for line in self.done}
        past = ended.get(hr.add(hour, -KEPT_HOURS))
        if past is None:  # nothing is as old yet, the first hours apart
            past = min(ended.values()) - 1e5
        return dt.datetime.fromtimestamp(past, dt.UTC) + dt.timedelta(hours=KEPT_HOURS)

    def cpu_of_servers(self) -> dict[str, float]:
        return {name: meter.seconds() for name, meter in self.servers.items()}

    def tell(self, line: Mapping[str, Any], left: int) -> None:
        seconds = [sum(past["wall"].values()) for past in self.done[-24:]]
        minutes = statistics.mean(seconds) * left / 60
        sizes = line["mb"]
        print(
            f"{line['hour']}  {seconds[-1]:5.1f} s wall  {sum(line['cpu'].values()):5.1f} s CPU  "
            f"catalog {sizes['catalog']:.0f}  metadata {sizes['metadata']:.1f}  "
            f"mlflow {sizes['mlflow']:.0f}  artefacts {sizes['artefacts']:.0f} MB  "
            f"{left} hours left, {minutes:.0f} min",
            flush=True,
        )


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The hours that are done; a last line that a kill cut off is none."""
    if not path.exists():
        return []
    found = []
    for text in path.read_text().splitlines():
        try:
            found.append(json.loads(text))
        except ValueError:
            break
    path.write_text("".join(json.dumps(line) + "\n" for line in found))
    return found


def run_day(place: SmallStack, hours: Sequence[str], kept: Path) -> None:
    """The hours in a process of their own, where any of them is not there yet."""
    if set(hours) <= {line["hour"] for line in read_lines(kept)}:
        return
    day = multiprocessing.get_context("fork").Process(target=lambda: Soak(place, hours, kept).run())
    day.start()
    day.join()
    if day.exitcode:
        raise SystemExit(f"the hours from {hours[0]} on ended with {day.exitcode}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="not used")
    parser.add_argument("--hours", type=int, default=168, help="measured hours [%(default)s]")
    parser.add_argument(
        "--history", type=int, default=1, metavar="DAYS",
        help="filled before the first hour; with 15 all windows of features are full [%(default)s]",
    )  # fmt: skip
    parser.add_argument(
        "--folder", type=Path, default=ROOT / ".rankmill" / "soak",
        help="what the run keeps; goes on from there [%(default)s]",
    )  # fmt: skip
    parser.add_argument("--anew", action="store_true", help="delete the folder first")
    parser.add_argument("--trial", action="store_true", help="write no result and no picture")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    if arguments.anew:
        clear(folder)
        (folder / "hours.jsonl").unlink(missing_ok=True)
    before = 24 * arguments.history
    first = hr.add(START, before)
    hours = hr.hour_range(first, hr.add(first, arguments.hours - 1))
    with small_stack(folder, CONFIGURATION) as place:
        write_simulation(
            MARKET, place.log, before + arguments.hours, lambda _h, _r: None, with_truth=False
        )
        for day in range(0, len(hours), FIRST_DAY):
            run_day(place, hours[day : day + FIRST_DAY], folder / "hours.jsonl")
    done = [line for line in read_lines(folder / "hours.jsonl") if line["hour"] in set(hours)]
    if len(done) < 2 * FIRST_DAY:
        print(f"{len(done)} hours are too few to compare two days")
        return 0
    results = lines(done)
    for line in results:
        if not line["case"].startswith("hour "):
            print(json.dumps(line))
    if not arguments.trial:
        RESULTS.write_text("".join(json.dumps(line) + "\n" for line in results))
        picture(done).savefig(PICTURE, dpi=100)
    return 0


if __name__ == "__main__":
    sys.exit(main())
