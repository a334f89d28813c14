"""Everything that goes wrong while jobs run: what was lost, by fault.

    python benchmarks/faults.py                             # every fault, on all its jobs
    python benchmarks/faults.py --fault "disk full" --tries 10 --seed 3
    python benchmarks/faults.py --fault "job killed" --seed 3 --only 17     # one try again
    python benchmarks/faults.py --list

The tries are those of tests/faults. Each prints one line; the table is written after every try, to
the file that ``--out`` names, by default benchmarks/results/faults.json when all faults are met.
With ``--fault`` the file keeps what it says of the others. A try that lost something is counted,
says why, and the next one begins on a new store. Exit status 1 with losses.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the tests are not installed

from tests.faults.catalogue import FAULTS, fault  # noqa: E402
from tests.faults.small_store import SmallStore, jobs_of  # noqa: E402
from tests.faults.trials import NOTHING, Fault, LostError, Trial, planned  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "faults.json"
NAMES = [fault.name for fault in FAULTS]
PARTS = ("table", "losses")
MET = ("before", "between", "after", "ended")
COLUMNS = ("tries", *MET, "healed", "lost")


def made(tries: Sequence[Trial]) -> Iterator[dict[str, Any]]:
    """One line per try; a store for each world, made anew after a loss.

    After the last try of a fault the next hour must be as after an undisturbed one.
    """
    for world, group in groupby(tries, lambda trial: trial.fault.world):
        mine = list(group)
        names = [trial.job.name for trial in mine]
        lasts = {trial.fault.name: trial for trial in mine}
        store: SmallStore | None = None
        try:
            for trial in mine:
                began = time.monotonic()
                line = described(trial)
                try:
                    store = store or SmallStore(jobs_of(names), world, ahead=True)
                    line |= asdict(store.attempt(trial))
                    if trial is lasts[trial.fault.name]:
                        store.go_on()
                except pytest.skip.Exception as reason:
                    line["skipped"] = str(reason)
                except LostError as error:
                    line["lost"] = str(error)
                    if store is not None:
                        store.close()
                    store = None
                yield line | {"took": round(time.monotonic() - began, 1)}
        finally:
            if store is not None:
                store.close()


def described(trial: Trial) -> dict[str, Any]:
    """What is known of a try before it is made."""
    at = round(trial.moment, 4) if trial.fault.during else None
    return {"fault": trial.fault.name, "number": trial.number, "job": trial.job.name,
            "way": trial.way, "moment": at, "lost": None, "skipped": None}  # fmt: skip


def met(line: dict[str, Any]) -> str:
    """The column of a try: whether the fault came before anything was visible, or after all of it,
    or met a job that had already ended."""
    if line["struck"] == NOTHING:
        return "ended"
    if line["seen"] == 0:
        return "before"
    return "between" if line["seen"] < line["whole"] else "after"


def table(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Tries by fault; None where a column has no meaning."""
    rows: dict[str, dict[str, Any]] = {}
    for line in lines:
        one = fault(line["fault"])
        row = rows.setdefault(one.name, empty(one))
        if line["skipped"] is not None:
            row["skipped"] = line["skipped"]
            continue
        row["tries"] += 1
        row["jobs"] = sorted({*row["jobs"], line["job"]})
        row["seconds"] = round(row["seconds"] + line["took"], 1)
        row["lost" if line["lost"] is not None else "healed"] += 1
        if one.during and line["lost"] is None:
            row[met(line)] += 1
    return list(rows.values())


def empty(one: Fault) -> dict[str, Any]:
    """The row of a fault before its first try."""
    known = dict.fromkeys(COLUMNS, 0) | ({} if one.during else dict.fromkeys(MET))
    return {"fault": one.name, "what": one.what, "jobs": [], "seconds": 0.0,
            "skipped": None, **known}  # fmt: skip


def others(path: Path, faults: Iterable[str]) -> dict[str, Any]:
    """What a result says of other faults than ``faults``: its rows and its losses."""
    found = json.loads(path.read_text()) if path.exists() else {"table": [], "losses": []}
    mine = set(faults)
    return {key: [one for one in found[key] if one["fault"] not in mine] for key in PARTS}


def write(path: Path, seed: int, lines: list[dict[str, Any]], kept: dict[str, Any]) -> None:
    """Replace the result with that of ``lines``, and what is ``kept`` of other faults."""
    rows = sorted([*kept["table"], *table(lines)], key=lambda row: NAMES.index(row["fault"]))
    result = {
        "bench": "faults",
        "seed": seed,
        "tries": sum(row["tries"] for row in rows),
        "lost": sum(row["lost"] for row in rows),
        "minutes": round(sum(row["seconds"] for row in rows) / 60, 1),
        "cores": os.cpu_count(),
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "table": rows,
        "losses": [*kept["losses"], *(line for line in lines if line["lost"] is not None)],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps(result, indent=1) + "\n")
    draft.replace(path)


def show(lines: list[dict[str, Any]]) -> None:
    """The table as text."""
    print(f"{'fault':<26}" + "".join(f"{column:>9}" for column in COLUMNS))
    for row in table(lines):
        cells = ("-" if row[column] is None else row[column] for column in COLUMNS)
        words = f"  skipped: {row['skipped']}" if row["skipped"] else ""
        print(f"{row['fault']:<26}" + "".join(f"{cell:>9}" for cell in cells) + words)


def chosen(arguments: argparse.Namespace) -> list[Trial]:
    """The tries that the command line asks for."""
    faults = [fault(name) for name in arguments.fault] or list(FAULTS)
    found = []
    for one in sorted(faults, key=lambda one: one.world):
        tries = arguments.tries or max(3, len(one.jobs))
        numbers = range(tries) if arguments.only is None else [arguments.only]
        found += [planned(one, arguments.seed, number) for number in numbers]
    return [t for t in found if not arguments.jobs or t.job.name in arguments.jobs]


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="not used")
    parser.add_argument(
        "--fault",
        action="append",
        default=[],
        choices=NAMES,
        metavar="NAME",
        help="this fault, or these, instead of all; see --list",
    )
    parser.add_argument(
        "--tries", type=int, help="how many of each fault [one on each of its jobs, three at least]"
    )
    parser.add_argument("--seed", type=int, default=0, help="which ones [%(default)s]")
    parser.add_argument("--only", type=int, metavar="N", help="only try N of each fault")
    parser.add_argument("--jobs", nargs="+", metavar="JOB", help="only the tries on these jobs")
    parser.add_argument(
        "--out", type=Path, help=f"the table [{RESULTS.relative_to(ROOT)} when all faults are met]"
    )
    parser.add_argument("--list", action="store_true", help="name the faults and their jobs")
    return parser  # fmt: skip


def main() -> int:
    arguments = parser().parse_args()
    if arguments.list:
        for one in FAULTS:
            print(f"{one.name:<26}{one.what}\n{'':<26}{' '.join(one.jobs)}")
        return 0
    whole = not arguments.fault and not arguments.jobs and arguments.only is None
    out = arguments.out or (RESULTS if whole else None)
    tries = chosen(arguments)
    kept = others(out or RESULTS, {trial.fault.name for trial in tries})
    lines: list[dict[str, Any]] = []
    for line in made(tries):
        print(f"[{len(lines) + 1} of {len(tries)}] {json.dumps(line)}", flush=True)
        lines.append(line)
        if out is not None:
            write(out, arguments.seed, lines, kept)
    show(lines)
    return 1 if any(line["lost"] for line in lines) else 0


if __name__ == "__main__":
    sys.exit(main())
