"""Hourly jobs killed at random moments, by the hundred: what was lost, by job and way.

    python benchmarks/kills.py --tries 100              # an hour or two on two cores
    python benchmarks/kills.py --seed 3 --only 17       # one try again
    python benchmarks/kills.py --jobs embed_graph --tries 6

The tries are those of tests/faults. Each prints one JSON line; the table is written after every
try, to the file that ``--out`` names, by default benchmarks/results/kills.json. A try that lost
something is counted, says why, and the next one begins on a new store. Exit status 1 with losses.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from itertools import count, islice
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))  # the tests are not installed

from tests.faults.hourly import JOBS  # noqa: E402
from tests.faults.kills import LostError, SmallStore, Try, jobs_of, planned  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "kills.json"
COLUMNS = ("tries", "before", "between", "after", "ended", "lost")


def made(tries: Sequence[Try]) -> Iterable[dict[str, Any]]:
    """One line per try; the store is made anew after a loss."""
    store: SmallStore | None = None
    try:
        for trial in tries:
            store = store or SmallStore(jobs_of(tries))
            began = time.monotonic()
            line = {"number": trial.number, "job": trial.job.name, "way": trial.way,
                    "moment": round(trial.moment, 4), "lost": None}  # fmt: skip
            try:
                line |= asdict(store.attempt(trial))
            except LostError as error:
                line["lost"] = str(error)
                store.close()
                store = None
            yield line | {"took": round(time.monotonic() - began, 1)}
    finally:
        if store is not None:
            store.close()


def met(line: dict[str, Any]) -> str:
    """The column of a try: whether the kill came before anything was visible, after all, or met
    a job that had already ended."""
    if line["lost"] is not None:
        return "lost"
    if line["struck"] == "nothing":
        return "ended"
    if line["seen"] == 0:
        return "before"
    return "between" if line["seen"] < line["whole"] else "after"


def table(lines: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Tries by job and way, with how many of them met the job before, between and after its
    commits."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for line in lines:
        place = line["job"], line["way"]
        row = rows.setdefault(
            place, dict(zip(("job", "way"), place, strict=True)) | dict.fromkeys(COLUMNS, 0)
        )
        row["tries"] += 1
        row[met(line)] += 1
    return [rows[place] for place in sorted(rows)]


def write(path: Path, seed: int, lines: list[dict[str, Any]]) -> None:
    """Replace the result with that of ``lines``."""
    result = {
        "bench": "kills",
        "seed": seed,
        "tries": len(lines),
        "lost": sum(line["lost"] is not None for line in lines),
        "cores": os.cpu_count(),
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "table": table(lines),
        "losses": [line for line in lines if line["lost"] is not None],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps(result, indent=1) + "\n")
    draft.replace(path)


def show(lines: list[dict[str, Any]]) -> None:
    """The table as text."""
    print(f"{'job':<18}{'way':<8}" + "".join(f"{column:>9}" for column in COLUMNS))
    for row in table(lines):
        numbers = "".join(f"{row[column]:>9}" for column in COLUMNS)
        print(f"{row['job']:<18}{row['way']:<8}{numbers}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="not used")
    parser.add_argument("--tries", type=int, default=100, help="how many [%(default)s]")
    parser.add_argument("--seed", type=int, default=0, help="which ones [%(default)s]")
    parser.add_argument("--only", type=int, metavar="N", help="only this one; writes no result")
    parser.add_argument("--out", type=Path, help=f"the table [{RESULTS}, unless --jobs is given]")
    parser.add_argument(
        "--jobs", nargs="+", choices=[job.name for job in JOBS],
        help="the first --tries of these jobs alone; writes a result only where --out says so",
    )  # fmt: skip
    arguments = parser.parse_args()
    only = arguments.only
    every = (planned(arguments.seed, number) for number in count(0 if only is None else only))
    wanted = (trial for trial in every if trial.job.name in (arguments.jobs or [trial.job.name]))
    out = arguments.out or (None if arguments.jobs else RESULTS)
    lines: list[dict[str, Any]] = []
    for line in made(list(islice(wanted, arguments.tries if only is None else 1))):
        print(json.dumps(line), flush=True)
        lines.append(line)
        if only is None and out is not None:
            write(out, arguments.seed, lines)
    show(lines)
    return 1 if any(line["lost"] for line in lines) else 0


if __name__ == "__main__":
    sys.exit(main())
