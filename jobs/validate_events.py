"""Judge an ingested hour by its gates; only a validated hour is read by anyone."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace

import pyarrow as pa

from feature_store import hours as hr
from feature_store import storage
from feature_store.gate_kinds import KINDS
from feature_store.gates import (
    GateResult,
    GateRule,
    Measure,
    Measured,
    applicable,
    check_files,
    columns_of,
    judge_hour,
    measure_hour,
    passed,
)
from feature_store.schemas import EVENTS, GATE_RESULTS, optional
from feature_store.tables import HourWriter, Staged, Store
from jobs.support.arguments import job_parser, run_hours
from jobs.support.fencing import claim, run_token
from jobs.support.gates_page import HISTORY_HOURS, JudgedHours, gates_page
from jobs.support.logged_page import LoggedPage, log_page
from jobs.support.settings import Settings, load_settings
from jobs.support.summary import RefusedError, Summary, main_of, progress
from models.versions import RegistryError

__all__ = ["build_parser", "main", "run", "validate"]

JOB = "validate_events"
EXPERIMENT = "gates"


def _history(store: Store, first: str) -> dict[str, dict[str, Measure]]:
    """Measures of earlier hours by gate and hour, hours that failed left out."""
    hours = store.readable_hours("gate_results", hr.add(first, -HISTORY_HOURS), hr.add(first, -1))
    rows = store.read("gate_results", hours).to_pylist()
    failed = {row["hour"] for row in rows if row["level"] == "fail"}
    history: dict[str, dict[str, Measure]] = {}
    for row in rows:
        if row["hour"] not in failed:
            result = GateResult(**row)
            history.setdefault(result.gate, {})[result.hour] = result.measure
    return history


def _measured(paths: Sequence[str], rows: int, rules: Sequence[GateRule]) -> Measured:
    """What an hour holds. Its rows are read once, and only when its files are as declared."""
    problems = check_files(paths, rows)
    if problems:
        return Measured(0, {}, problems)
    events = storage.dataset(paths, optional(EVENTS))
    return measure_hour(events.to_batches(columns=columns_of(rules)), rules)


def _judged(
    store: Store, rows: Mapping[str, int], rules: Sequence[GateRule], accept: str | None
) -> JudgedHours:
    """Every hour's verdicts, in order; the walk stops at the first hour that is refused.

    Args:
        rows: the hours, in order, with their rows.
    """
    hours = list(rows)
    history = _history(store, hours[0])
    before = _accepted_before(store, hours)
    final = {rule.name for rule in rules if not KINDS[rule.kind].acceptable}
    files = store.files_by_hour("events", hours)
    verdicts: dict[str, list[GateResult]] = {}
    for hour in hours:
        results = judge_hour(hour, _measured(files[hour], rows[hour], rules), history, rules)
        verdicts[hour] = [
            result if result.gate in final else _with_acceptance(result, accept, before)
            for result in results
        ]
        if not passed(verdicts[hour]):
            break
        for result in results:
            history.setdefault(result.gate, {})[hour] = result.measure
    return JudgedHours(tuple(rules), verdicts, history)


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


def _staged(store: Store, verdicts: Mapping[str, Sequence[GateResult]]) -> Staged:
    staged = Staged("gate_results")
    for hour, results in verdicts.items():
        writer = HourWriter(store, "gate_results", hour)
        rows = [asdict(result) for result in results]
        writer.write(pa.Table.from_pylist(rows, schema=GATE_RESULTS))
        writer.close(staged)
    return staged


def _log_page(store: Store, settings: Settings, judged: JudgedHours, token: str) -> str | None:
    """Log the page of the run, once per range of hours; its address, if it has one."""
    hours = list(judged.verdicts)
    values = {result.gate: result.value for result in judged.verdicts[hours[-1]]}
    page = LoggedPage(
        EXPERIMENT, f"{hours[0]}:{hours[-1]}", judged.title,
        {"source": settings.source_name, "hours": len(hours), **judged.levels()},
        {gate: value for gate, value in values.items() if value is not None},
        {"gates.html": gates_page(judged)},
    )  # fmt: skip
    return log_page(JOB, store, settings, page, hours, token)


def _refusal(
    store: Store, settings: Settings, judged: JudgedHours, token: str, dry: bool
) -> RefusedError:
    """Why the last hour is refused, how to go on, and where to look."""
    hour = list(judged.verdicts)[-1]
    reasons = "; ".join(r.message for r in judged.verdicts[hour] if r.level == "fail")
    message = (
        f"{reasons}. The hour stays unvalidated and nobody reads it. Correct the source, "
        f"ingest the hour again and clear this task, or accept it: "
        f"validate_events.py --hour {hour} --accept 'why'"
    )
    if dry:
        return RefusedError(message)
    try:
        url = _log_page(store, settings, judged, token)
    except RegistryError as error:
        return RefusedError(f"{message}. It has no page: {error}")
    summary = Summary(JOB, list(judged.verdicts), mlflow_run_url=url)
    return RefusedError(f"{message}. Its page: {url}" if url else message, summary)


def validate(
    store: Store, settings: Settings, hours: Sequence[str], token: str, accept: str | None,
    dry: bool,
) -> Summary:  # fmt: skip
    """Judge ``hours`` in order, mark them, and log a page of them.

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
    rules = applicable(settings.gates, settings.open_source().windows)
    judged = _judged(store, {hour: ingested[hour].rows for hour in hours}, rules, accept)
    verdicts = judged.verdicts
    refused = [hour for hour, results in verdicts.items() if not passed(results)]
    summary = Summary(JOB, list(verdicts), "dry-run" if dry else "done",
                      rows_in=sum(ingested[h].rows for h in verdicts),
                      rejected=judged.levels())  # fmt: skip
    for results in verdicts.values():
        for result in results:
            if result.level != "pass":
                progress(JOB, f"{result.level}: {result.message}")
    if not dry:
        summary.snapshots = {"gate_results": store.commit(_staged(store, verdicts), writer)}
        with store.ledger.holding(JOB, list(verdicts), token):
            store.ledger.validate("events", {hour: hour not in refused for hour in verdicts})
    if refused:
        raise _refusal(store, settings, judged, token, dry)
    if not dry:
        summary.mlflow_run_url = _log_page(store, settings, judged, token)
    summary.rows_out = summary.rows_in
    return summary


def run(arguments: argparse.Namespace) -> Summary:
    settings = load_settings(arguments)
    hours = run_hours(arguments, settings.open_source().time_zone)
    store = settings.open_store()
    token = run_token(arguments.run_id)
    return validate(store, settings, hours, token, arguments.accept, arguments.dry_run)


def build_parser() -> argparse.ArgumentParser:
    parser = job_parser(
        JOB,
        "Judge an hour by the gates of conf/gates.yaml and of the configuration: files, nulls, "
        "ranges, volume, rates of actions and drift, most of them against earlier hours. An hour "
        "that passes is validated; one that is refused stays unread (exit status 3). A page with "
        "plots is logged to MLflow, experiment 'gates'.",
        "  validate_events.py --hour 2026-11-11T05\n"
        "  validate_events.py --hour 2026-11-11T05 --accept 'festival opening, volume is real'\n",
    )
    parser.add_argument("--accept", metavar="REASON", help="validate a refused hour, and say why")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    return main_of(JOB, build_parser(), run, argv)


if __name__ == "__main__":
    sys.exit(main())
