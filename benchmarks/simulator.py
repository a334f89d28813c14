"""The simulator: events per second on one core and on two, and memory at 1, 10 and 50 million.

    python benchmarks/simulator.py

Runs ``jobs/simulate_events.py`` as anybody would, log and truth written to a temporary folder, and
prints one JSON line per case. Two processes are compared with one; there is no outside peer.
Memory is the highest sum of resident memory of the job and its processes.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from measuring import watched

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "simulator.jsonl"
MARKET = (
    "--requests-per-hour", "20000", "--users", "200000", "--items", "50000", "--rooms", "2000",
)  # fmt: skip
HOURS = {"1M": 6, "10M": 34, "50M": 160}  # about so many events


@dataclass(frozen=True)
class Measured:
    """One run of the job."""

    events: int
    seconds: float
    peak_mb: float

    @property
    def rate(self) -> float:
        return self.events / self.seconds


def measure(hours: int, processes: int) -> Measured:
    """Simulate ``hours``, and watch the memory of the job and its children."""
    with tempfile.TemporaryDirectory(prefix="rankmill-bench-") as folder:
        command = [sys.executable, str(ROOT / "jobs" / "simulate_events.py"), "--out", folder]
        command += ["--hours", str(hours), "--processes", str(processes), *MARKET]
        run = watched(command)
    summary = json.loads(run.last_line)
    return Measured(summary["rows_out"], summary["seconds"], run.peak_mb)


def line(case: str, unit: str, ours: float, theirs: float | None, run: Measured, **more) -> dict:
    return {
        "bench": "simulator",
        "case": case,
        "ours": round(ours, 1),
        "peer": "one process" if theirs is not None else "none",
        "peer_version": "same run",
        "theirs": None if theirs is None else round(theirs, 1),
        "unit": unit,
        "ratio": None if theirs is None else round(ours / theirs, 2),
        "ours_peak_mb": round(run.peak_mb),
        "theirs_peak_mb": None,
        "quality": {"events": run.events, "seconds": run.seconds, **more},
        "repetitions": 1,
        "cores": os.cpu_count(),
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", help="not used")
    parser.add_argument("--short", action="store_true", help="a million events at most")
    arguments = parser.parse_args()
    results = []

    def report(result: dict) -> None:
        print(json.dumps(result), flush=True)
        results.append(json.dumps(result))

    size = "1M" if arguments.short else "10M"
    one, two = (measure(HOURS[size], processes) for processes in (1, 2))
    if one.events != two.events:
        raise SystemExit(f"{one.events} events by one process, {two.events} by two")
    report(line(f"one_process_{size}", "events/s", one.rate, None, one))
    report(line(f"two_processes_{size}", "events/s", two.rate, one.rate, two))
    for name in () if arguments.short else ("1M", "50M"):
        run = measure(HOURS[name], 2)
        report(line(f"memory_{name}", "MB", run.peak_mb, None, run, rate=round(run.rate)))
    if not arguments.short:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text("\n".join(results) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
