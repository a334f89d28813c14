"""A registry of 10,000 versions of one name beside one of 10: listing, an hour's jobs, promotion.

    make bench-many_versions                            # a quarter of an hour on two cores
    make bench-many_versions ARGS="--versions 2000 --folder /tmp/many"

A small store of 24 hours is filled, and of two names one real version each is trained, judged and
promoted. Copies of it are written straight into MLflow's database: its rows in `model_versions`,
`runs`, `logged_models` and what hangs on them (tags, parameters, metrics), under run and model ids
of their own, each having seen an hour of data less than the one before. Registering them through
the server would take hours. Their files are those of the one they are copies of. Of the first name
there are 10 versions, and everything is timed; then 10,000 of the second name are written, and
everything is timed again.

Seconds are those of a clock, and those computed by the job, MLflow's server and the database
together, which other work on the machine moves less. `ratio` is of the latter: with 10 versions
through with 10,000; 1 is as good as it gets. With `--go-on` the store and the versions of the last
call are used, and later hours are trained: so the same registry is asked by other code.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any, Final

import requests
from measuring import watched
from small_stack import ROOT, CpuMeter, SmallStack, clear, small_stack

from feature_store import hours as hr
from feature_store.sources.simulator import MarketConfig, write_simulation
from local.versions import read_versions

RESULTS: Final = ROOT / "benchmarks" / "results" / "many_versions.jsonl"
START: Final = "2026-11-08T16"
BEFORE: Final = 24
FIRST: Final = hr.add(START, BEFORE)
HOURS: Final = 6
FEW, MANY = "few_ranker", "many_ranker"
CONFIGURATION: Final = {
    "source": {"name": "simulator"},
    "train": {"gbdt": {"tasks": ["click"], "rounds": 20, "num_leaves": 15}},
    "evaluation": {"labels": ["click"], "resamples": 200},
}
MARKET: Final = MarketConfig(
    start=START, requests_per_hour=50, users=500, items=300, rooms=60, categories=8
)


TABLES: Final = {
    "runs": "run", "params": "run", "tags": "run", "metrics": "run", "latest_metrics": "run",
    "logged_models": "model", "logged_model_metrics": "model", "logged_model_params": "model",
    "logged_model_tags": "model", "inputs": "input", "model_versions": "version",
    "model_version_tags": "version",
}  # fmt: skip
"""What a version consists of in MLflow's database, those that others refer to first; and whose
each row is."""
HOUR: Final = "'YYYY-MM-DD\"T\"HH24'"
EARLIER: Final = f"to_char(to_timestamp(value, {HOUR}) - (n - 1) * interval '1 hour', {HOUR})"
MOVED: Final = (
    f"case when key in ('data_hour', 'run_hour') then {EARLIER} "
    "when key = 'run_key' then value || '=' || n else value end"
)


def copying(table: str, columns: Sequence[str], name: str, count: int) -> str:
    """The statement that copies what version 1 of ``name`` has in ``table`` as versions 2 to
    ``count``.

    The n-th has seen what version 1 has, n - 1 hours earlier; its tags say so. Its run and its
    model have ids of their own, which begin with the first letter of the name and end in its
    number.
    """
    mine = f"name = '{name}' and version = 1"
    run = f"(select run_id from model_versions where {mine})"  # noqa: S608
    model = f"(select replace(source, 'models:/', '') from model_versions where {mine})"  # noqa: S608
    chosen = {"run": f"run_uuid = {run}", "model": f"model_id = {model}",
              "input": f"source_id = {run}", "version": mine}  # fmt: skip
    own_run = f"'{name[0]}' || lpad(to_hex(n), 31, '0')"
    own_model = f"'m-{name[0]}' || lpad(to_hex(n), 31, '0')"
    own = {
        "run_uuid": own_run, "run_id": own_run, "source_run_id": own_run, "source_id": own_run,
        "model_id": own_model, "destination_id": own_model, "source": f"'models:/' || {own_model}",
        "version": "n", "input_uuid": "gen_random_uuid()::text",
    }  # fmt: skip
    if table in ("tags", "model_version_tags"):
        own["value"] = MOVED
    values = ", ".join(own.get(column, column) for column in columns)
    return (
        f"insert into {table} ({', '.join(columns)}) select {values} "  # noqa: S608
        f"from {table}, generate_series(2, {count}) as n where {chosen[TABLES[table]]}"
    )


def copy(place: SmallStack, name: str, count: int) -> None:
    """Write the copies, and let the database look at its tables as it would by and by."""
    for table in TABLES:
        query = (
            "select column_name from information_schema.columns "  # noqa: S608
            f"where table_name = '{table}' order by ordinal_position"
        )
        found = place.rows("mlflow", query)
        place.rows("mlflow", copying(table, [column for (column,) in found], name, count))
    place.rows("mlflow", "vacuum analyze")


@dataclass(frozen=True)
class Took:
    """Seconds by the clock, and computed by all that took part."""

    wall: float
    cpu: float


class Watch:
    """Times what is asked of a stack."""

    def __init__(self, place: SmallStack) -> None:
        self.place = place
        self._servers = [CpuMeter(pid) for pid in place.servers.values()]

    def _computed(self) -> float:
        used = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
        own = sum(one.ru_utime + one.ru_stime for one in used)
        return own + sum(meter.seconds() for meter in self._servers)

    def once(self, call: Callable[[], object]) -> Took:
        began, computed = time.monotonic(), self._computed()
        call()
        return Took(time.monotonic() - began, self._computed() - computed)

    def median(self, call: Callable[[], object], repetitions: int = 3) -> Took:
        return median([self.once(call) for _ in range(repetitions)])

    def job(self, job: str, *arguments: str) -> Took:
        """A job as a process, from start to end."""
        command = [sys.executable, str(ROOT / "jobs" / f"{job}.py"), *arguments]
        took = self.once(lambda: watched(command, self.place.env))
        said = f"# {job} {' '.join(arguments)}: {took.wall:.1f} s, {took.cpu:.1f} s computed"
        print(said, file=sys.stderr, flush=True)
        return took


def median(found: Sequence[Took]) -> Took:
    return Took(*(statistics.median(values) for values in zip(*map(astuple, found), strict=True)))


def calls(watch: Watch, name: str, hour: str) -> dict[str, Took]:
    """Seconds of what jobs and pages ask the registry."""
    from jobs.evaluate import _candidate
    from jobs.support.plans import find_candidate, plan_of
    from jobs.support.settings import load_settings
    from jobs.support.version_plots import earlier_shares
    from models.registry import Registry

    address = watch.place.env["MLFLOW_TRACKING_URI"]
    registry = Registry(address)
    settings = load_settings(argparse.Namespace(**dict.fromkeys(
        ("config", "data", "warehouse", "catalog_uri", "tracking_uri"))))  # fmt: skip
    [last] = [version for version in registry.versions(name) if version.version == 1]
    server = requests.Session()
    server.trust_env = False

    def asked(path: str, **parameters: Any) -> None:
        url = f"{address}/ajax-api/2.0/mlflow/{path}"
        server.get(url, params=parameters, timeout=300).raise_for_status()

    with closing(settings.open_store()) as store:
        plan = plan_of(store, settings, name, hour)
        return {
            "all versions": watch.median(lambda: registry.versions(name)),
            "version of a run key": watch.median(lambda: registry.find(name, last.tags["run_key"])),
            "version of an alias": watch.median(lambda: registry.alias(name, "champion")),
            "candidate of an hour": watch.median(lambda: find_candidate(registry, plan)),
            "candidate, looking back": watch.median(lambda: _candidate(registry, plan, hour, True)),
            "importances of a day": watch.median(
                lambda: earlier_shares("bench", registry, name, hour)),
            "page of the model": watch.median(lambda: asked("registered-models/get", name=name)),
            "page of its versions": watch.median(lambda: asked(
                "model-versions/search", filter=f"name='{name}'", max_results=25,
                order_by="version_number DESC")),
            "page of all models": watch.median(lambda: asked(
                "registered-models/search", max_results=10)),
            "table of make run": watch.median(lambda: read_versions(address), 1),
        }  # fmt: skip


def jobs(watch: Watch, name: str, hours: Sequence[str]) -> dict[str, Took]:
    """Seconds of an hour's jobs as processes, and of maintenance that only looks."""
    found: dict[str, list[Took]] = {}
    for hour in hours:
        given = ("--name", name, "--hour", hour)
        for job in ("train_gbdt", "evaluate", "promote"):
            found.setdefault(job, []).append(watch.job(job, *given))
        offline = watch.job("evaluate", *given, "--evaluation", "offline")
        found.setdefault("evaluate offline", []).append(offline)
        looked = watch.job("maintain", "--hour", hour, "--dry-run")
        found.setdefault("maintain --dry-run", []).append(looked)
    return {job: median(took) for job, took in found.items()}


def line(case: str, few: Took, many: Took, versions: int) -> dict[str, Any]:
    return {
        "bench": "many_versions", "case": case, "ours": round(many.cpu, 3), "peer": "10 versions",
        "peer_version": "same run", "theirs": round(few.cpu, 3),
        "unit": f"CPU s, {versions:,} versions", "ratio": round(few.cpu / many.cpu, 3),
        "ours_peak_mb": None, "theirs_peak_mb": None,
        "quality": {"wall": round(many.wall, 3), "wall_of_10": round(few.wall, 3),
                    "load": round(os.getloadavg()[0], 1)},
        "repetitions": 3, "cores": os.cpu_count(),
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
    }  # fmt: skip


def fill(watch: Watch) -> None:
    """The store, and version 1 of both names."""
    place, last = watch.place, hr.add(FIRST, HOURS - 1)
    write_simulation(MARKET, place.log, BEFORE + HOURS, lambda _h, _r: None, with_truth=False)
    submit = str(Path(sys.executable).with_name("spark-submit"))
    command = [submit, "--master", "local[2]", str(ROOT / "jobs" / "bootstrap.py"),
               "--from-hour", START, "--to-hour", last, "--accept", "a bench"]  # fmt: skip
    watched(command, place.env)
    for name in (FEW, MANY):
        for job in ("train_gbdt", "evaluate", "promote"):
            watch.job(job, "--name", name, "--hour", FIRST)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="not used")
    parser.add_argument("--versions", type=int, default=10_000, help="[%(default)s]")
    parser.add_argument("--first", type=int, default=1, help="the first hour timed [%(default)s]")
    parser.add_argument("--repetitions", type=int, default=3, help="hours timed [%(default)s]")
    parser.add_argument(
        "--folder", type=Path, default=ROOT / ".rankmill" / "many_versions", help="scratch"
    )
    parser.add_argument("--go-on", action="store_true", help="use what the last call made")
    parser.add_argument("--trial", action="store_true", help="write no result")
    arguments = parser.parse_args()
    folder = arguments.folder.resolve()
    if not arguments.go_on:
        clear(folder)
    first = hr.add(FIRST, arguments.first)
    hours = hr.hour_range(first, hr.add(first, arguments.repetitions - 1))
    found = []
    with small_stack(folder, CONFIGURATION) as place:
        watch = Watch(place)
        if not arguments.go_on:
            fill(watch)
        for name, count in ((FEW, 10), (MANY, arguments.versions)):
            if not arguments.go_on:
                took = watch.once(lambda name=name, count=count: copy(place, name, count))
                print(f"# {count:,} versions in {took.wall:.0f} s", file=sys.stderr, flush=True)
            found.append({**calls(watch, name, FIRST), **jobs(watch, name, hours)})
    few, many = found
    results = [line(case, few[case], many[case], arguments.versions) for case in few]
    for result in results:
        print(json.dumps(result), flush=True)
    if not arguments.trial:
        RESULTS.write_text("".join(json.dumps(result) + "\n" for result in results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
