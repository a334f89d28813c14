"""Judge an ingested hour by its volume and rates; only a validated hour is read by anyone."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

import pyarrow as pa

from feature_store import hours as hr
from feature_store.gates import GATES, GateResult, GateRules, judge_hour, measure, passed
from feature_store.schemas import GATE_RESULTS
from feature_store.tables import HourWriter, Staged, Store
from jobs.support.arguments import job_parser, run_hours
from jobs.support.fencing import claim, run_token
from jobs.support.settings import load_settings
from jobs.support.summary import RefusedError, Summary, main_of, progress

__all__ = ["build_parser", "main", "run", "validate"]

JOB = "validate_events"
_HISTORY_HOURS = 7 * 24


def _history(store: Store, first: str) -> dict[str, dict[str, float]]:
    """Values of earlier hours by gate and hour, failed ones left out."""
    hours = store.readable_hours("gate_results", hr.add(first, -_HISTORY_HOURS), hr.add(first, -1))
    rows = store.read("gate_results", hours, ["gate", "hour", "value", "level"]).to_pylist()
    history: dict[str, dict[str, float]] = {gate: {} for gate in GATES}
    for row in rows:
        if row["level"] != "fail" and row["gate"] in history:
            history[row["gate"]][row["hour"]] = row["value"]
    return history


def _judged(
    store: Store, hours: Sequence[str], rules: GateRules, accept: str | None
) -> dict[str, list[GateResult]]:
    """Every hour's verdicts, in order; the walk stops at the first hour that is refused."""
    history = _history(store, hours[0])
    before = _accepted_before(store, hours)
    verdicts: dict[str, list[GateResult]] = {}
    for hour in hours:
        results = judge_hour(hour, measure(store.batches("events", [hour], ["action"])), history,
                             rules)  # fmt: skip
        results = [_with_acceptance(result, accept, before) for result in results]
        verdicts[hour] = results
        if not passed(results):
            break
        for result in results:
            if result.value is not None:
                history[result.gate][hour] = result.value
    return verdicts


def _accepted_before(store: Store, hours: Sequence[str]) -> dict[tuple[str, str, float], str]:
    """Messages of verdicts that somebody accepted, by gate, hour and the value accepted."""
    known = store.readable_hours("gate_results", hours[0], hours[-1])
    return {
        (row["gate"], row["hour"], row["value"]): row["message"]
        for row in store.read("gate_results", known).to_pylist()
        if row["level"] == "accepted"
    }


def _with_acceptance(
    result: GateResult, accept: str | None, before: Mapping[tuple[str, str, float], str]
) -> GateResult:
    """A failure that is accepted now, or was accepted before at the same value, fails no more."""
    if result.level != "fail":
        return result
    if accept is not None:
        message = f"{result.message}; accepted: {accept}"
        return replace(result, level="accepted", message=message)
    known = before.get((result.gate, result.hour, result.value or 0.0))
    return result if known is None else replace(result, level="accepted", message=known)


def _staged(store: Store, verdicts: Mapping[str, list[GateResult]]) -> Staged:
    staged = Staged("gate_results")
    for hour, results in verdicts.items():
        writer = HourWriter(store, "gate_results", hour)
        rows = [asdict(result) for result in results]
        writer.write(pa.Table.from_pylist(rows, schema=GATE_RESULTS))
        writer.close(staged)
    return staged


def validate(
    store: Store, rules: GateRules, hours: Sequence[str], token: str, accept: str | None, dry: bool
) -> Summary:
    """Judge ``hours`` in order and mark them.

    Raises:
        RefusedError: at the first hour that a gate refuses, saying how to go on.
    """
    writer = claim(store, JOB, hours, token)
    ingested = store.ledger.completions("events", hours[0], hours[-1])
    missing = [hour for hour in hours if hour not in ingested]
    if missing:
        raise RefusedError(
            f"hour {missing[0]} is not ingested ({len(missing)} of {len(hours)} hours); "
            f"run ingest_events.py --hour {missing[0]} first"
        )
    verdicts = _judged(store, hours, rules, accept)
    refused = [hour for hour, results in verdicts.items() if not passed(results)]
    levels = [result.level for results in verdicts.values() for result in results]
    summary = Summary(JOB, list(verdicts), "dry-run" if dry else "done",
                      rows_in=sum(ingested[h].rows for h in verdicts),
                      rejected={level: levels.count(level) for level in sorted(set(levels))},
                      )  # fmt: skip
    for results in verdicts.values():
        for result in results:
            if result.level != "pass":
                progress(JOB, f"{result.level}: {result.message}")
    if not dry:
        summary.snapshots = {"gate_results": store.commit(_staged(store, verdicts), writer)}
        with store.ledger.holding(JOB, list(verdicts), token):
            store.ledger.validate("events", {hour: hour not in refused for hour in verdicts})
    if refused:
        reasons = "; ".join(r.message for r in verdicts[refused[0]] if r.level == "fail")
        raise RefusedError(
            f"{reasons}. The hour stays unvalidated and nobody reads it. Correct the source, "
            f"ingest the hour again and clear this task, or accept it: "
            f"validate_events.py --hour {refused[0]} --accept 'why'"
        )
    summary.rows_out = summary.rows_in
    return summary


def run(arguments: argparse.Namespace) -> Summary:
    settings = load_settings(arguments)
    hours = run_hours(arguments, settings.open_source().time_zone)
    store = settings.open_store()
    token = run_token(arguments.run_id)
    return validate(store, settings.gates, hours, token, arguments.accept, arguments.dry_run)


def build_parser() -> argparse.ArgumentParser:
    parser = job_parser(
        JOB,
        "Compare an hour's volume and click rate with earlier hours. An hour that passes is "
        "validated; one that is refused stays unread (exit status 3).",
        "  validate_events.py --hour 2026-11-11T05\n"
        "  validate_events.py --hour 2026-11-11T05 --accept 'festival opening, volume is real'\n",
    )
    parser.add_argument("--accept", metavar="REASON", help="validate a refused hour, and say why")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    return main_of(JOB, build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
